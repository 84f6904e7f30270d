FROM scratch
ENV a=${b:?must be given}
