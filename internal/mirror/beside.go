package mirror

import (
	"context"
	"strings"
	"sync"

	"github.com/leatdata/leat/internal/fault"
)

// besides remembers folders of the target which are not the source: a server may show a folder of its own as a bucket, and a folder may be mounted at
// two places. What lies there would be replaced or deleted at the source.
type besides struct {
	mu    sync.Mutex
	known map[string]*besideLook // by folder
}

type besideLook struct {
	once sync.Once
	err  error
}

// look gives the look at a folder. Keys come in about their order, so a folder is looked at about once although few are remembered.
func (b *besides) look(folder string) *besideLook {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.known[folder]
	if l == nil {
		if b.known == nil || len(b.known) >= mostRemembered {
			b.known = map[string]*besideLook{}
		}
		l = &besideLook{}
		b.known[folder] = l
	}
	return l
}

// forget has a folder looked at again, after a look that failed.
func (b *besides) forget(folder string, l *besideLook) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known[folder] == l {
		delete(b.known, folder)
	}
}

// isBeside is asked before an object of the target is replaced or deleted. It is mirror-refused when one of the folders that the object lies in is the
// source by another name: the object would be the source's own.
func (r *run) isBeside(ctx context.Context, key string) error {
	if r.o.DryRun || r.inMemory() {
		return nil
	}
	for folder := folderOf(key); folder != ""; folder = folderOf(folder) {
		l := r.besides.look(folder)
		l.once.Do(func() { l.err = r.guarded(key, func() error { return r.lookBeside(ctx, folder, key) }) })
		if l.err != nil {
			r.besides.forget(folder, l)
			return l.err
		}
	}
	return nil
}

// lookBeside looks whether a folder of the target is the source. If it is, the source has each of its objects under the rest of its key; only where it
// has that of the one that is at hand a mark must tell.
func (r *run) lookBeside(ctx context.Context, folder, key string) error {
	if here, err := r.atSource(ctx, strings.TrimPrefix(key[len(folder):], "/")); err == nil && here == nil || ctx.Err() != nil {
		return err
	}
	at := folder + "/" + r.markKey
	text, err := r.writeMark(ctx, at)
	switch {
	case err != nil:
		return err
	case text == "":
		return fault.New(fault.BucketRights, r.to.bucket.Properties().URL+"/"+key, "the source may be its folder %q by another name, and no mark can be written there to find that out", folder).
			WithMend("Let the keys write %s, or exclude the folder.", at)
	}
	if err := r.seesMark(ctx, r.markKey); err != nil {
		return err
	}
	switch there, err := r.readMark(ctx, r.to.bucket, at); {
	case err != nil:
		return err
	case there != text:
		return fault.New(fault.BucketBusy, r.to.bucket.Properties().URL, "another mirror of the name %q works at the same time", r.o.Name).
			WithMend("Give each mirror a name of its own: mirror.name.")
	}
	return nil
}
