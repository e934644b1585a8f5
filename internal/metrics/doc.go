// Package metrics counts what a pipeline does, for Prometheus, and answers whether it lives and is ready.
package metrics
