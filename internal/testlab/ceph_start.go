package testlab

// StartCeph starts a Ceph gateway of its own, which ends with the process or by Stop.
func StartCeph() (Store, error) {
	c, err := startCeph()
	if err != nil {
		return Store{}, err
	}
	return c.store, nil
}
