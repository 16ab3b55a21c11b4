"""What is measured beside Celeriac on RabbitMQ; each module runs under the peers' Python."""
