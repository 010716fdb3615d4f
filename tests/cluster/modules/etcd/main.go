// Command etcd is the server of the test cluster: the upstream main, without etcdctl and etcdutl.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
