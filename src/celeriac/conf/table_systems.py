"""The settings of the broker, and of the systems that drivers talk to."""

from __future__ import annotations

from celeriac.conf.kinds import (
    ANY,
    BOOL,
    INT,
    MAPPING,
    NAMES,
    NUMBER,
    SECONDS,
    SSL,
    TEXT,
    URLS,
    maybe,
    seconds,
)
from celeriac.conf.setting import accepted, derived, later, setting

_IN_THE_URL = "the parts of the broker's address belong into broker_url"
_SHARED = "callers share a connection and its round trips; there is no pool to bound"


class BrokerSettings:
    group = "Broker"

    broker_url = setting(
        URLS,
        None,  # the application then uses sqlite:///celeriac.db, and says so
        doc="URL of the broker, or several to try in turn; None: sqlite:///celeriac.db.",
        environment=("CELERY_BROKER_URL",),
    )
    broker_read_url = derived(
        URLS,
        lambda conf: conf.broker_url,
        doc="URL for workers, where it is another one.",
        default_text="`broker_url`",
        status="later",
        environment=("CELERY_BROKER_READ_URL",),
    )
    broker_write_url = derived(
        URLS,
        lambda conf: conf.broker_url,
        doc="URL for publishing, where it is another one.",
        default_text="`broker_url`",
        status="later",
        environment=("CELERY_BROKER_WRITE_URL",),
    )
    broker_transport_options = setting(MAPPING, {}, doc="Options for the broker's driver.")
    # delay() is called in web requests: it must not hang because a broker does.
    broker_publish_timeout = setting(
        seconds(above=0.0),
        5.0,
        own=True,
        doc="Seconds within which publishing succeeds or raises, all retries included.",
    )
    broker_connection_timeout = setting(
        SECONDS, 4, doc="Seconds within which a connection is made, for AMQP."
    )
    broker_connection_retry = later(
        BOOL, True, doc="Whether a worker connects again after it lost the broker."
    )
    broker_connection_retry_on_startup = setting(
        BOOL, None, doc="Whether it waits for a broker that is down when it starts."
    )
    broker_connection_max_retries = later(
        maybe(INT), 100, doc="How often in a row it tries; None or 0: without end."
    )
    broker_failover_strategy = later(ANY, None, doc="How one of several URLs is chosen.")
    broker_heartbeat = later(
        maybe(SECONDS), 120, doc="Seconds between heartbeats of the connection, for AMQP."
    )
    broker_heartbeat_checkrate = later(
        NUMBER, 3.0, doc="How often in that time they are looked for."
    )
    broker_login_method = setting(TEXT, None, doc="How to log in, for AMQP.")
    broker_use_ssl = setting(SSL, False, doc="TLS for the connection.")
    broker_native_delayed_delivery_queue_type = setting(
        TEXT, "quorum", doc="Type of the queues that delay messages, for RabbitMQ."
    )
    broker_channel_error_retry = accepted(
        BOOL,
        False,
        doc="Whether channel errors are retried.",
        reason="a connection that failed in any way is thrown away and built anew",
    )
    broker_pool_limit = accepted(
        maybe(INT), 10, doc="How many connections a client holds.", reason=_SHARED
    )
    broker_pool_acquire_timeout = accepted(
        SECONDS, None, doc="Seconds to wait for one.", reason=_SHARED
    )
    broker_transport = accepted(TEXT, None, doc="Kind of the broker.", reason=_IN_THE_URL)
    broker_host = accepted(TEXT, None, doc="Its host.", reason=_IN_THE_URL)
    broker_port = accepted(INT, None, doc="Its port.", reason=_IN_THE_URL)
    broker_user = accepted(TEXT, None, doc="Its user.", reason=_IN_THE_URL)
    broker_password = accepted(TEXT, None, doc="Its password.", reason=_IN_THE_URL, secret=True)
    broker_vhost = accepted(TEXT, None, doc="Its virtual host.", reason=_IN_THE_URL)


class RedisSettings:
    group = "Redis"

    redis_host = setting(
        TEXT, None, "CELERY_REDIS_HOST", doc="Host for results, if the URL names none."
    )
    redis_port = setting(
        INT, None, "CELERY_REDIS_PORT", doc="Port for results, if the URL names no host."
    )
    redis_db = setting(
        INT, None, "CELERY_REDIS_DB", doc="Database number for results, if the URL names none."
    )
    redis_username = setting(
        TEXT, None, "CELERY_REDIS_USERNAME", doc="User for results, if the URL names none."
    )
    redis_password = setting(
        TEXT,
        None,
        "CELERY_REDIS_PASSWORD",
        doc="Password for results, if the URL has none.",
        secret=True,
    )
    redis_max_connections = accepted(
        INT,
        None,
        "CELERY_REDIS_MAX_CONNECTIONS",
        doc="Bound of the connections for results.",
        reason="a process has two of them, however many threads wait",
    )
    redis_socket_timeout = setting(
        maybe(SECONDS),
        None,
        "CELERY_REDIS_SOCKET_TIMEOUT",
        doc="Seconds for an answer about results.",
        default_text="5",
    )
    redis_socket_connect_timeout = setting(
        SECONDS,
        None,
        "CELERY_REDIS_SOCKET_CONNECT_TIMEOUT",
        doc="Seconds to connect for results.",
        default_text="3",
    )
    redis_socket_keepalive = setting(
        BOOL,
        None,
        "CELERY_REDIS_SOCKET_KEEPALIVE",
        doc="Whether TCP keeps connections for results alive.",
        default_text="`True`",
    )
    redis_retry_on_timeout = accepted(
        BOOL,
        False,
        "CELERY_REDIS_RETRY_ON_TIMEOUT",
        doc="Whether a time-out is tried again.",
        reason="a connection that failed is thrown away and built anew by whoever needs it next",
    )
    redis_backend_use_ssl = setting(
        SSL, None, "CELERY_REDIS_BACKEND_USE_SSL", doc="TLS for the connections for results."
    )
    redis_backend_health_check_interval = accepted(
        SECONDS,
        None,
        doc="Seconds between checks of a connection.",
        reason="a connection that was idle is looked at before it is used",
    )
    redis_backend_credential_provider = setting(
        ANY,
        None,
        doc="Object or path of a class that gives user and password for results.",
        secret=True,
    )
    redis_client_name = setting(
        TEXT, None, doc="Name of the connections for results in `CLIENT LIST`."
    )


class DatabaseSettings:
    group = "Databases"

    database_url = later(TEXT, None, "CELERY_RESULT_DBURI", doc="URL of the database of results.")
    database_engine_options = later(
        MAPPING,
        {"pool_pre_ping": True, "pool_recycle": 3600},
        "CELERY_RESULT_ENGINE_OPTIONS",
        doc="Options of its engine.",
    )
    database_engine_callback = later(ANY, None, doc="Function that makes the engine.")
    database_short_lived_sessions = later(
        BOOL,
        False,
        "CELERY_RESULT_DB_SHORT_LIVED_SESSIONS",
        doc="Whether connections are not kept.",
    )
    database_table_names = later(
        MAPPING, None, "CELERY_RESULT_DB_TABLENAMES", doc="Names of the tables."
    )
    database_table_schemas = later(MAPPING, None, doc="Schemas of the tables.")
    database_create_tables_at_setup = later(BOOL, True, doc="Whether tables are made at once.")


class OtherSystemsSettings:
    group = "Other systems"

    cache_backend = later(TEXT, None, "CELERY_CACHE_BACKEND", doc="Cache: URL or alias.")
    cache_backend_options = later(
        MAPPING, {}, "CELERY_CACHE_BACKEND_OPTIONS", doc="Cache: options of its client."
    )
    mongodb_backend_settings = later(
        MAPPING, None, "CELERY_MONGODB_BACKEND_SETTINGS", doc="MongoDB: options."
    )
    couchbase_backend_settings = later(
        MAPPING, None, "CELERY_COUCHBASE_BACKEND_SETTINGS", doc="Couchbase: options."
    )
    arangodb_backend_settings = later(
        MAPPING, None, "CELERY_ARANGODB_BACKEND_SETTINGS", doc="ArangoDB: options."
    )
    cassandra_servers = later(NAMES, None, doc="Cassandra: hosts.")
    cassandra_port = later(INT, None, doc="Cassandra: port.")
    cassandra_keyspace = later(TEXT, None, doc="Cassandra: key space.")
    cassandra_table = later(TEXT, None, doc="Cassandra: table.")
    cassandra_read_consistency = later(TEXT, None, doc="Cassandra: consistency of reads.")
    cassandra_write_consistency = later(TEXT, None, doc="Cassandra: consistency of writes.")
    cassandra_entry_ttl = later(SECONDS, None, doc="Cassandra: seconds for which rows are kept.")
    cassandra_bundle_path = later(TEXT, None, doc="Cassandra: file of the connection bundle.")
    cassandra_auth_provider = later(TEXT, None, doc="Cassandra: class that logs in.")
    cassandra_auth_kwargs = later(MAPPING, None, doc="Cassandra: its arguments.", secret=True)
    cassandra_options = later(MAPPING, {}, doc="Cassandra: more options.")
    s3_access_key_id = later(TEXT, None, doc="S3: access key.", secret=True)
    s3_secret_access_key = later(TEXT, None, doc="S3: its secret.", secret=True)
    s3_bucket = later(TEXT, None, doc="S3: bucket.")
    s3_base_path = later(TEXT, None, doc="S3: path in the bucket.")
    s3_endpoint_url = later(TEXT, None, doc="S3: URL of the service.")
    s3_region = later(TEXT, None, doc="S3: region.")
    azureblockblob_container_name = later(TEXT, "celery", doc="Azure blobs: container.")
    azureblockblob_base_path = later(TEXT, "", doc="Azure blobs: path in the container.")
    azureblockblob_retry_initial_backoff_sec = later(INT, 2, doc="Azure blobs: first back-off.")
    azureblockblob_retry_increment_base = later(INT, 2, doc="Azure blobs: its growth.")
    azureblockblob_retry_max_attempts = later(INT, 3, doc="Azure blobs: attempts.")
    azureblockblob_connection_timeout = later(SECONDS, 20, doc="Azure blobs: seconds to connect.")
    azureblockblob_read_timeout = later(SECONDS, 120, doc="Azure blobs: seconds for an answer.")
    gcs_bucket = later(TEXT, None, doc="Google Cloud Storage: bucket.")
    gcs_project = later(TEXT, None, doc="Google Cloud Storage: project.")
    gcs_base_path = later(TEXT, "", doc="Google Cloud Storage: path in the bucket.")
    gcs_ttl = later(SECONDS, 0, doc="Google Cloud Storage: seconds for which objects are kept.")
    elasticsearch_timeout = later(
        SECONDS, None, "CELERY_ELASTICSEARCH_TIMEOUT", doc="Elasticsearch: seconds for an answer."
    )
    elasticsearch_retry_on_timeout = later(
        BOOL,
        None,
        "CELERY_ELASTICSEARCH_RETRY_ON_TIMEOUT",
        doc="Elasticsearch: whether a time-out is tried again.",
    )
    elasticsearch_max_retries = later(
        INT, None, "CELERY_ELASTICSEARCH_MAX_RETRIES", doc="Elasticsearch: how often."
    )
    elasticsearch_save_meta_as_text = later(
        BOOL,
        True,
        "CELERY_ELASTICSEARCH_SAVE_META_AS_TEXT",
        doc="Elasticsearch: whether documents are kept as text.",
    )
    cosmosdbsql_database_name = later(TEXT, "celerydb", doc="Cosmos DB: database.")
    cosmosdbsql_collection_name = later(TEXT, "celerycol", doc="Cosmos DB: collection.")
    cosmosdbsql_consistency_level = later(TEXT, "Session", doc="Cosmos DB: consistency.")
    cosmosdbsql_max_retry_attempts = later(INT, 9, doc="Cosmos DB: attempts.")
    cosmosdbsql_max_retry_wait_time = later(INT, 30, doc="Cosmos DB: seconds for all of them.")
