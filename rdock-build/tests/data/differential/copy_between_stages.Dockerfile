FROM base AS first
RUN mkdir -m 0750 /made && echo x > /made/x && chown -R app:app /made && chmod 4711 /made/x && ln -s x /made/link && ln /made/x /made/hard
FROM scratch AS second
COPY --from=0 /made /by-index
COPY --from=FIRST made/x /by-name
FROM second
COPY --from=first --chown=5:6 /made/ /owned/
COPY --from=first /made/link /link
COPY --from=second /by-name /again
