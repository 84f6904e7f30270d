FROM scratch
RUN --device=vendor.com/class true
