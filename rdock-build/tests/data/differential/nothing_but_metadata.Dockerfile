FROM scratch
LABEL a=b
ENV c=d
CMD ["x"]
