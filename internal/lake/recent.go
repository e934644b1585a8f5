package lake

import "sync"

// mostRecent is how many bytes of small manifests a lake remembers, of all its tables.
const mostRecent = 8 << 20

// recentFiles are small manifests that this process has written just now. A later commit merges them, and need not fetch them for that.
type recentFiles struct {
	mu    sync.Mutex
	data  map[string][]byte
	names []string // the oldest first
	size  int
}

// put remembers a file; data must not change any more.
func (r *recentFiles) put(name string, data []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.data == nil {
		r.data = map[string][]byte{}
	}
	r.data[name] = data
	r.names = append(r.names, name)
	for r.size += len(data); r.size > mostRecent; r.names = r.names[1:] {
		r.size -= len(r.data[r.names[0]])
		delete(r.data, r.names[0])
	}
}

func (r *recentFiles) get(name string) ([]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	data, ok := r.data[name]
	return data, ok
}
