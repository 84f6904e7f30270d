FROM scratch
RUN --mount=type=ssh true
