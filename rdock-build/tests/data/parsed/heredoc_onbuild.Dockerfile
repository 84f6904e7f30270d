FROM scratch
ONBUILD RUN <<EOF
echo later
EOF
ONBUILD COPY <<f /f
text
f
RUN after
