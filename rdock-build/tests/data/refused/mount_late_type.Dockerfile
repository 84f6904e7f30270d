FROM scratch
ARG t=chache
RUN --mount=type=$t,target=/x true
