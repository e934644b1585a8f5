package bucket

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/leatdata/leat/internal/fault"
)

// azureAccount is whom we are to Azure. The names of the variables are those of Azure's own tools.
type azureAccount struct {
	name, key, sas, connection, endpoint string
}

func (o Options) azureAccount() azureAccount {
	if o.AccessKeyID != "" || o.SessionToken != nil {
		a := azureAccount{name: o.AccessKeyID, endpoint: o.Endpoint}
		if o.SecretAccessKey != nil {
			a.key = o.SecretAccessKey()
		}
		if o.SessionToken != nil {
			a.sas = o.SessionToken()
		}
		return a
	}
	return azureAccount{
		name: os.Getenv("AZURE_STORAGE_ACCOUNT"), key: os.Getenv("AZURE_STORAGE_KEY"), sas: os.Getenv("AZURE_STORAGE_SAS_TOKEN"),
		connection: os.Getenv("AZURE_STORAGE_CONNECTION_STRING"), endpoint: o.Endpoint,
	}
}

// service is the URL of the account's blob service, without a query.
func (a azureAccount) service() (string, error) {
	endpoint := a.endpoint
	if endpoint == "" {
		domain := os.Getenv("AZURE_STORAGE_DOMAIN")
		if domain == "" {
			domain = "blob.core.windows.net"
		}
		protocol := os.Getenv("AZURE_STORAGE_PROTOCOL")
		if protocol == "" {
			protocol = "https"
		}
		switch {
		case a.name == "":
			return "", fault.New(fault.ConfigMissing, "azblob", "the storage account is not known").
				WithMend("Set AZURE_STORAGE_ACCOUNT, or give the account as access key id.")
		case os.Getenv("AZURE_STORAGE_IS_LOCAL_EMULATOR") == "true":
			endpoint = protocol + "://" + domain + "/" + a.name
		default:
			endpoint = protocol + "://" + a.name + "." + domain
		}
	}
	return strings.TrimRight(endpoint, "/"), nil
}

func openAzure(at place, opts Options) (*azureBucket, error) {
	wire, err := newTransport(opts.CAFile, opts.Proxy, opts.Stall)
	if err != nil {
		return nil, err
	}
	b := &azureBucket{at: at, wire: wire, opts: opts, buffers: buffers{keep: opts.PartParallel + 1}}
	if b.client, err = b.connect(opts.azureAccount()); err != nil {
		return nil, err
	}
	service, err := url.Parse(b.client.URL())
	if err != nil {
		return nil, fault.New(fault.URLInvalid, at.String(), "the endpoint is not a URL")
	}
	b.known = Properties{
		// Scheme and host only: a SAS token would stand in the query.
		Kind: KindAzure, URL: at.String(), Endpoint: service.Scheme + "://" + service.Host,
		Checksums: "md5", ConditionalPut: Supported, ConditionalMultipart: Supported,
	}
	return b, checkEndpoint(b.known.Endpoint, opts.AllowHTTP)
}

func (b *azureBucket) connect(a azureAccount) (*container.Client, error) {
	retries := int32(b.opts.MaxRetries)
	if retries == 0 {
		retries = -1 // the SDK's way to say none
	}
	o := &container.ClientOptions{ClientOptions: policy.ClientOptions{
		Transport: b.wire,
		Retry:     policy.RetryOptions{MaxRetries: retries, RetryDelay: b.opts.Backoff / 20, MaxRetryDelay: b.opts.Backoff},
	}}
	bad := func(err error) error {
		// The SDK's own words may repeat the connection string.
		return fault.New(fault.BucketAuth, b.at.String(), "the Azure credentials cannot be used").
			Because(&cause{"they are not of the form that Azure gives them", err})
	}
	if a.connection != "" && a.key == "" && a.sas == "" {
		client, err := container.NewClientFromConnectionString(a.connection, b.at.name, o)
		if err != nil {
			return nil, bad(err)
		}
		return client, nil
	}
	service, err := a.service()
	if err != nil {
		return nil, err
	}
	at := service + "/" + url.PathEscape(b.at.name)
	var client *container.Client
	switch {
	case a.key != "":
		var key *container.SharedKeyCredential
		if key, err = container.NewSharedKeyCredential(a.name, a.key); err == nil {
			client, err = container.NewClientWithSharedKeyCredential(at, key, o)
		}
	case a.sas != "":
		client, err = container.NewClientWithNoCredential(at+"?"+strings.TrimPrefix(a.sas, "?"), o)
	default:
		var identity *azidentity.DefaultAzureCredential
		if identity, err = azidentity.NewDefaultAzureCredential(nil); err == nil {
			client, err = container.NewClient(at, identity, o)
		}
	}
	if err != nil {
		return nil, bad(err)
	}
	return client, nil
}

// azureCodes judges the codes of Azure
// (learn.microsoft.com/rest/api/storageservices/blob-service-error-codes). What is not here is
// judged by its HTTP status.
var azureCodes = map[bloberror.Code]fault.Code{
	bloberror.ContainerNotFound:     fault.BucketMissing,
	bloberror.ContainerBeingDeleted: fault.BucketMissing,
	bloberror.BlobNotFound:          fault.ObjectMissing,
	bloberror.ResourceNotFound:      fault.ObjectMissing,

	bloberror.AuthenticationFailed:        fault.BucketAuth,
	bloberror.InvalidAuthenticationInfo:   fault.BucketAuth,
	bloberror.NoAuthenticationInformation: fault.BucketAuth,

	// Another program has a lease on the blob: nothing is known of its versions.
	bloberror.LeaseIDMissing:                        fault.BucketBusy,
	bloberror.LeaseLost:                             fault.BucketBusy,
	bloberror.LeaseIDMismatchWithBlobOperation:      fault.BucketBusy,
	bloberror.LeaseIDMismatchWithContainerOperation: fault.BucketBusy,

	bloberror.ConditionNotMet:   fault.ObjectExists,
	bloberror.BlobAlreadyExists: fault.ObjectExists,

	bloberror.BlobArchived:        fault.ObjectArchived,
	bloberror.BlobBeingRehydrated: fault.ObjectArchived,

	bloberror.MD5Mismatch:                     fault.ChecksumMismatch,
	bloberror.InvalidBlockList:                fault.BucketFailed,
	bloberror.AccountIsDisabled:               fault.BucketRights,
	bloberror.AuthorizationFailure:            fault.BucketRights,
	bloberror.AuthorizationPermissionMismatch: fault.BucketRights,
}

// fault judges an error of the SDK.
func (b *azureBucket) fault(ctx context.Context, err error, key string) error {
	if err == nil {
		return nil
	}
	where := b.at.object(key)
	var answer *azcore.ResponseError
	var login *azidentity.AuthenticationFailedError
	switch {
	case errors.As(err, &answer):
	case ctx.Err() != nil:
		return interrupted(ctx, where)
	case errors.As(err, &login):
		return fault.New(fault.BucketAuth, where, "no usable Azure credentials were found").Because(&cause{"the login failed", err})
	default:
		if f := networkFault(err, where); f != nil {
			return f
		}
		return fault.New(fault.BucketFailed, where, "the request failed").Because(&cause{scrub(err), err})
	}
	code, found := azureCodes[bloberror.Code(answer.ErrorCode)]
	if !found {
		code = plainStatus(answer.StatusCode)
	}
	f := fault.New(code, where, "%s", whats[code]).
		Because(&cause{fmt.Sprintf("%s (HTTP status %d)", answer.ErrorCode, answer.StatusCode), err})
	switch code {
	case fault.BucketRights:
		f.Mend = fmt.Sprintf("Give this identity the role Storage Blob Data Contributor on the container %s.", b.at.name)
	case fault.BucketMissing:
		f.Mend = fmt.Sprintf("Create the container %s, or correct its name.", b.at.name)
	}
	return f
}
