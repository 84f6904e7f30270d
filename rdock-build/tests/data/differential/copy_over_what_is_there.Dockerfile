FROM base
RUN mkdir -p -m 0711 /d/sub && echo old > /d/one.txt && ln -s /etc/passwd /d/two.md && chown -R app /d
COPY dir /d/
COPY a.txt /d/one.txt
