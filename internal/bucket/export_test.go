package bucket

// PartBuffers says how many part buffers of an S3 bucket are in use, and the most that ever were.
func PartBuffers(b Bucket) (held, peak int) {
	buffers := &b.(*front).Bucket.(*s3Bucket).buffers
	buffers.mu.Lock()
	defer buffers.mu.Unlock()
	return buffers.held, buffers.peak
}

// PartSizes yields the sizes in bytes of all the parts that one upload may have.
func PartSizes(first int64) []int {
	u := &partUpload{sending: sending{partSize: first}}
	sizes := make([]int, maxParts)
	for u.number = range sizes {
		sizes[u.number] = u.size()
	}
	return sizes
}
