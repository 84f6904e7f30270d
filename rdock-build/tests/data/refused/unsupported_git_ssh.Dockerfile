FROM scratch
ADD git@host:owner/repository.git /x
