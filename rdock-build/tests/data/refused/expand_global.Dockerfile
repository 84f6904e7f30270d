ARG a=${b?}
FROM scratch
