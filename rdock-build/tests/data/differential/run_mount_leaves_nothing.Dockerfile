FROM base
RUN --mount=type=cache,target=/cache/deep --mount=type=tmpfs,target=/tmp/mem echo x > /cache/deep/x && echo y > /tmp/mem/y
RUN --mount=type=cache,target=/kept echo z > /kept/z && echo beside > /beside
RUN --mount=type=tmpfs,target=/srv echo w > /srv/w
RUN ls -a /cache /kept > /seen 2>&1 || true
