# Builds leat and puts it, with CA certificates and nothing else, into an empty image.
# It runs as an unprivileged user, on a read-only root file system, and keeps no state.
#
#   docker build --build-arg VERSION=$(git describe --tags --always) -t leat .
#   docker run --rm --read-only leat dump --help

FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
ARG TARGETOS=linux
ARG TARGETARCH
ARG VERSION=unknown
WORKDIR /src
COPY go.mod go.sum ./
COPY third_party ./third_party
RUN go mod download
COPY cmd ./cmd
COPY internal ./internal
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /leat ./cmd/leat

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /usr/local/go/lib/time/zoneinfo.zip /zoneinfo.zip
COPY LICENSE NOTICE /
COPY --from=build /leat /leat
ENV ZONEINFO=/zoneinfo.zip
USER 65532:65532
ENTRYPOINT ["/leat"]
