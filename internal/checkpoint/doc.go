// Package checkpoint keeps what a pipeline must know after a restart, as three small objects in the bucket, and makes
// sure that one process writes it.
//
//	lease.json    who runs the pipeline: epoch, owner, host; renewed again and again, by conditional write
//	state.json    how far it is: position, spool, what each table does; only the owner of the lease writes it
//	control.json  what people ask for: pause, resume, resync; only [Ask] writes it
//
// Clocks are not trusted. A lease has run out when the store's own clock says so, by the times it gives to the lease and to
// an object written just now, or when nobody renewed it while we watched for as long as it lasts. An owner judges its own
// lease by the time that has passed since it asked for the last renewal.
//
// A lease cannot stop a process that slept from waking up in the middle of a write. So each owner has an epoch, and a new
// one writes the state anew before it does anything else: what the old one tries after that fails, because the object is
// not the one it knows ([Store.Save], pipeline-fenced).
package checkpoint
