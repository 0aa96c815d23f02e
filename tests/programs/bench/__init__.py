"""CPU, latency and memory of the gateway beside other proxies; `make bench`. Not collected."""
