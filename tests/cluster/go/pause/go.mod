// The process that holds a pod's namespaces open.
module capstan.dev/tests/pause

go 1.24
