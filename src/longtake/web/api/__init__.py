"""The calls of the studio's HTTP interface, a module for each kind of thing."""
