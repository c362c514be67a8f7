"""Stream sockets: how much they hold, and where who writes to one asks for memory or waits; net/."""

# net.core.wmem_default, what a Unix stream socket holds before its sender waits
UNIX_BYTES = 212_992
# SO_SNDBUF of a connection over loopback, as tcp_init_buffer_space() sets it
TCP_BYTES = 3_939_840

# from sendto(2) to where the buffer of a reply is allocated
UNIX_REPLY = ("unix_stream_sendmsg", "sock_alloc_send_pskb", "__alloc_skb")
TCP_REPLY = ("tcp_sendmsg", "tcp_sendmsg_locked", "tcp_stream_alloc_skb")
