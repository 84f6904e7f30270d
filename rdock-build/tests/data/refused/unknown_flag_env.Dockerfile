FROM scratch
ENV --x a=b
