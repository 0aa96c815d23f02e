"""Why each error happens and what to do about it: the pages that `error_msg` names."""

from dataclasses import dataclass

from gateway.errors import ErrorCode
from gateway.http.request_reader import MAX_FIELD_BYTES, MAX_FIELDS, MAX_HEAD_BYTES
from gateway.http.target import MAX_TARGET_BYTES


@dataclass(frozen=True)
class Page:
    """Sentences in Markdown."""

    causes: tuple[str, ...]
    remedies: tuple[str, ...]


_LOG = "Find the request in the access log by its `request_id`; the log beside it has the detail."
_DOCTOR = "Run `modelarts-gateway doctor`: it names the first step that fails, and the fix."

PAGES: dict[ErrorCode, Page] = {
    ErrorCode.BAD_REQUEST: Page(
        (
            "`Content-Length` and `Transfer-Encoding` contradict each other or are not valid.",
            "A header field has no colon, white space in its name, or a control character.",
            "HTTPS or another protocol was sent to the plain HTTP port.",
        ),
        (
            "Use an HTTP library instead of writing the request by hand.",
            "Call `http://`, not `https://`, unless `listen_tls` is configured.",
        ),
    ),
    ErrorCode.BAD_TARGET: Page(
        (
            (
                "The path contains `.` or `..` segments, an encoded slash or backslash (`%2F`, `%5C`), "
                "or octets that are not UTF-8."
            ),
            "A header field such as `X-Original-URL` names another target.",
        ),
        (
            (
                "Resolve the path before sending; put file names that contain a slash into the query "
                "or the body."
            ),
            "Remove header fields that name another target.",
        ),
    ),
    ErrorCode.UPGRADE_REFUSED: Page(
        (
            "The request is a WebSocket handshake, and the service has no `websocket: true`.",
            "The handshake is not valid: it is not a `GET`, or it has a body.",
        ),
        ("Set `websocket: true` for the service if it speaks WebSocket.",),
    ),
    ErrorCode.BROWSER_REFUSED: Page(
        (
            (
                "A web page sent the request: it has an `Origin` that `allowed_origins` does not list, "
                "or `Sec-Fetch-Site` says that it is cross-site. Any page could otherwise use the "
                "project's token."
            ),
        ),
        (
            "Call the gateway from the application's server, not from the page.",
            "If the page may call: add its origin (`https://host[:port]`) to `allowed_origins`.",
        ),
    ),
    ErrorCode.CLIENT_NOT_ALLOWED: Page(
        (
            (
                "The client certificate is valid, but none of its subject alternative names is in "
                "`listen_tls.allowed_clients`."
            ),
        ),
        (
            (
                "Add one of its names (`openssl x509 -noout -ext subjectAltName -in FILE` shows them) "
                "to `listen_tls.allowed_clients`, then reload."
            ),
        ),
    ),
    ErrorCode.UNKNOWN_SERVICE: Page(
        (
            (
                "The path begins neither with the name of a service nor with the path of a service's "
                "`url`."
            ),
            "`/v1/infers/…` has another id than the service's `url`.",
        ),
        (
            (
                "Call `/<service name>` or the path of the service's own URL. `/status` on the admin "
                "listener lists the services."
            ),
            "Check the service's `url`, then reload.",
        ),
    ),
    ErrorCode.METHOD_NOT_ALLOWED: Page(
        (
            (
                "The service's `methods` does not list the method; the default is `POST` alone. The "
                "response's `Allow` names those that it accepts."
            ),
        ),
        ("Add the method to the service's `methods` if callers may use it.",),
    ),
    ErrorCode.SLOW_REQUEST: Page(
        (
            (
                "The head or the body stopped arriving, for example because the caller announced a "
                "longer `Content-Length` than it sends."
            ),
            "The body arrives more slowly than `timeouts.upload_rate` allows, averaged over 10 s.",
        ),
        (
            "Check that the caller sends as many bytes as `Content-Length` says.",
            (
                "For slow networks lower the service's `timeouts.upload_rate` or raise "
                "`timeouts.idle`."
            ),
        ),
    ),
    ErrorCode.BODY_TOO_LARGE: Page(
        (
            (
                "The body is larger than the service's `max_body` (12 MiB by default, ModelArts' own "
                "limit)."
            ),
        ),
        (
            "Send a smaller body: scale pictures down, split batches.",
            "If the service accepts more, raise its `max_body`.",
        ),
    ),
    ErrorCode.TARGET_TOO_LONG: Page(
        (f"Path and query together are longer than {MAX_TARGET_BYTES} bytes.",),
        ("Send long parameters in the body.",),
    ),
    ErrorCode.EXPECTATION_FAILED: Page(
        ("`Expect` has another value than `100-continue`, the only one that HTTP defines.",),
        ("Remove the `Expect` field.",),
    ),
    ErrorCode.WRONG_HOST: Page(
        (
            (
                "`Host` is neither a loopback name, nor the listen address, nor in `allowed_hosts`: "
                "the usual case is a Kubernetes Service's or a container's name. This protects from "
                "web pages that rebind a name to the loopback address."
            ),
        ),
        ("Add the name, without port, to `allowed_hosts`, or call the gateway by its address.",),
    ),
    ErrorCode.HEADERS_TOO_LARGE: Page(
        (
            (
                f"There are more than {MAX_FIELDS} header fields, one is longer than "
                f"{MAX_FIELD_BYTES // 1024} KiB, or all are longer than {MAX_HEAD_BYTES // 1024} KiB."
            ),
        ),
        ("Send fewer or shorter fields. Cookies of a web application are the usual cause.",),
    ),
    ErrorCode.METHOD_UNKNOWN: Page(
        ("The method is not one that the gateway knows, or it is not in upper case.",),
        ("Use `POST`, `GET` or another standard method, in upper case.",),
    ),
    ErrorCode.VERSION_NOT_SUPPORTED: Page(
        ("The request is HTTP/2 or HTTP/0.9.",),
        ("Configure the caller for HTTP/1.1 (curl: `--http1.1`).",),
    ),
    ErrorCode.CLIENT_DISCONNECTED: Page(
        (
            (
                "The caller closed the connection, usually because its own timeout is shorter than the "
                "service's response time."
            ),
            "It read its response so slowly that the gateway gave up.",
        ),
        (
            "Give the caller a longer timeout than the service's `timeouts.first_byte`.",
            "If the service has become slow, see `gateway_upstream_first_byte_seconds`.",
        ),
    ),
    ErrorCode.TOKEN_UNAVAILABLE: Page(
        (
            "IAM cannot be reached: DNS, network policy, egress proxy, certificate.",
            (
                "IAM responds too slowly (10 s), with an error, or with something that is not a valid "
                "token."
            ),
            "The secret's file cannot be read.",
        ),
        (
            "Callers: try again after `Retry-After`. The gateway retries by itself.",
            "Operators: " + _DOCTOR + " `/readyz?verbose` and the log say what failed.",
        ),
    ),
    ErrorCode.LOGIN_REFUSED: Page(
        (
            "User, domain, project or password is wrong, or the password has expired.",
            "The user has no right to log in by programs, or no role in the project.",
            "The account is locked after too many refused logins.",
        ),
        (
            "Run `modelarts-gateway whoami` or `modelarts-gateway doctor` for IAM's own reason.",
            (
                "Correct the configuration and reload, or replace the secret's file; the gateway "
                "notices a changed file and logs in at once."
            ),
            "Do not restart in a loop: each refused login counts towards the account's lock.",
        ),
    ),
    ErrorCode.LOGIN_THROTTLED: Page(
        ("IAM responded 429 to a login: many replicas or programs log in with one account.",),
        (
            "Callers: try again after `Retry-After`.",
            (
                "Operators: share one login between replicas (`fleet`), and look for other programs "
                "that log in for each request."
            ),
        ),
    ),
    ErrorCode.TOKEN_RENEWED: Page(
        (
            (
                "The service rejected the token before its time, for example because the password "
                "changed or the token was revoked. The gateway replaces it, but the request's body was "
                "too large to be kept (`replay_buffer`) or had not been received completely."
            ),
        ),
        (
            "Callers: send the request again after `Retry-After`.",
            (
                "Operators: if it happens often, find out who revokes tokens, or raise the service's "
                "`replay_buffer`."
            ),
        ),
    ),
    ErrorCode.OVERLOADED: Page(
        (
            (
                "The service's `max_in_flight` is reached, and the queue is full or the request has "
                "waited for `queue.wait`."
            ),
            "The process has as many connections as `limits.connections` or the open files allow.",
            "The bytes that wait have reached `limits.memory`.",
        ),
        (
            "Callers: try again after `Retry-After`, with back-off.",
            (
                "Operators: `gateway_requests_rejected_total` tells which limit it was "
                "(`reason`). Add instances of the service before raising `max_in_flight`; "
                "`modelarts-gateway doctor` says when a limit does not fit."
            ),
        ),
    ),
    ErrorCode.SERVICE_DOWN: Page(
        (
            (
                "The service failed `breaker.failures` times in a row, so the gateway does not ask it "
                "for `breaker.open`."
            ),
        ),
        (
            "Callers: try again after `Retry-After`.",
            (
                "Operators: look at the errors before it in `/status` or "
                "`gateway_errors_total`; they say how the service fails."
            ),
        ),
    ),
    ErrorCode.DRAINING: Page(
        ("The gateway was told to end (SIGTERM, `/quitquitquit`), for example by a rollout.",),
        (
            "Callers: connect again and send the request once more.",
            (
                "Operators: if callers see this in rollouts, raise `drain.announce`, so that load "
                "balancers learn of it before requests are refused."
            ),
        ),
    ),
    ErrorCode.INTERNAL: Page(
        ("A defect of the gateway. The log has the traceback.",),
        ("Report it with the request id, the version and the traceback; it holds no secret.",),
    ),
    ErrorCode.DNS_ERROR: Page(
        (
            (
                "The host name of the service's `url` does not exist, or the name server does not "
                "respond."
            ),
        ),
        ("Check the name in `url`, the pod's DNS, and network policies on port 53.", _DOCTOR),
    ),
    ErrorCode.CONNECTION_REFUSED: Page(
        (
            (
                "Nothing listens at the service's address, a firewall rejects the connection, or the "
                "network cannot be reached."
            ),
        ),
        ("Check the port in `url`, security groups and network policies.", _DOCTOR),
    ),
    ErrorCode.EGRESS_PROXY_ERROR: Page(
        (
            (
                "The proxy cannot be reached, refuses the password (407), or does not allow the "
                "service's host and port."
            ),
        ),
        ("Check `egress_proxy` and its `password_file`, and the proxy's own log.", _DOCTOR),
    ),
    ErrorCode.CONNECTION_TERMINATED: Page(
        (
            (
                "The service, or a load balancer before it, closed the connection before a response: "
                "a crash, a restart, a limit."
            ),
            (
                "It closed a kept connection just as the request was sent, and the method may not be "
                "sent twice."
            ),
        ),
        (
            "Callers: send the request again only if the model may process it twice.",
            "Operators: look at the service's log at the same time; " + _LOG,
        ),
    ),
    ErrorCode.TLS_CERTIFICATE_ERROR: Page(
        (
            (
                "The certificate has expired, is for another name, or comes from an authority that "
                "this machine does not trust."
            ),
        ),
        (
            (
                "Give the authority's certificate in the service's `tls.ca_file`, or the certificate's "
                "name in `tls.server_name`."
            ),
            (
                "`modelarts-gateway doctor` shows the name and the reason. Do not set `verify: false`: "
                "anyone on the way could then read the token."
            ),
        ),
    ),
    ErrorCode.TLS_PROTOCOL_ERROR: Page(
        (
            "The service does not speak TLS on this port, or no TLS version or cipher in common.",
            "The service asks for a client certificate.",
        ),
        ("Check scheme and port in `url`; give `tls.client_cert_file` if it asks for one.",),
    ),
    ErrorCode.HTTP_PROTOCOL_ERROR: Page(
        (
            (
                "The response's head or framing is not valid: for example two different lengths, "
                "control characters, or more than 64 KiB of header fields. To forward it could mix up "
                "the responses of different callers."
            ),
        ),
        ("Report it to the service's developers; " + _LOG,),
    ),
    ErrorCode.HTTP_RESPONSE_INCOMPLETE: Page(
        (
            (
                "The service closed the connection before the end of its response. If the caller had "
                "already received a part, its connection is reset, so that half a response never looks "
                "whole."
            ),
        ),
        ("Look for a crash, a restart or out-of-memory kill of the service at that time.",),
    ),
    ErrorCode.CONNECTION_TIMEOUT: Page(
        ("The service's address did not respond within `timeouts.connect`: usually a firewall.",),
        ("Check security groups, network policies and the route to the service.", _DOCTOR),
    ),
    ErrorCode.HTTP_RESPONSE_TIMEOUT: Page(
        (
            "The model takes longer than `timeouts.first_byte`. ModelArts' own limit is 40 s.",
            (
                "The response stalled for longer than `timeouts.idle`, or its body began later than "
                "`timeouts.first_chunk`."
            ),
            "The service does not read the request.",
        ),
        (
            "Make the model faster or the input smaller; stream the response if the model can.",
            "Raise the timeout only if the service itself allows more.",
        ),
    ),
}
"""A test asserts that there is a page for each code."""
