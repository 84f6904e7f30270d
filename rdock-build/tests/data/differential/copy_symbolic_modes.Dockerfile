FROM base
COPY --chmod=u=rwX,go=rX dir /readable/
COPY --chmod=a+x,g-w a.txt dir/two.md /changed/
COPY --chmod=go= b.txt run.sh /private/
COPY --chmod=go-rx dir /closed
