FROM base AS one
