# comment ÿ is fine
FROM scratch
RUN echo ÿ
