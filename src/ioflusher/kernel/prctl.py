"""Options of prctl(2), include/uapi/linux/prctl.h."""

# since 5.6, commit 8d19f1c8e193 "prctl: PR_{G,S}ET_IO_FLUSHER to support controlling memory reclaim"
PR_SET_IO_FLUSHER = 57
PR_GET_IO_FLUSHER = 58

PR_CAP_AMBIENT = 47  # since 4.3
PR_CAP_AMBIENT_LOWER = 3
