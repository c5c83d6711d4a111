"""An issuer of JSON Web Tokens, by openssl."""

import base64
import json
import time

from harness import run

# What a token may say of its user: everything.
ALL = "read:*/* write:*/* configure:*/*"


def encoded(data):
    data = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """An issuer with an RSA key, by openssl."""

    def __init__(self, folder, kid="k1"):
        folder.mkdir(parents=True, exist_ok=True)
        self.key, self.kid, self.set = folder / "issuer.key", kid, folder / "jwks.json"
        run(["openssl", "genrsa", "-out", self.key, "2048"])
        modulus = run(["openssl", "rsa", "-in", self.key, "-noout", "-modulus"]).stdout.decode().strip()
        number = bytes.fromhex(modulus.removeprefix("Modulus="))
        jwk = {"kty": "RSA", "kid": kid, "use": "sig", "n": encoded(number), "e": "AQAB"}
        self.jwks = json.dumps({"keys": [jwk]})
        self.set.write_text(self.jwks)

    def token(self, user="ann", lives=600, scope="", algorithm="RS256", **claims):
        now = time.time()
        claims = {"iss": "https://idp", "aud": "inver", "sub": user, "exp": now + lives, "iat": now,
                  "scope": scope, **claims}
        message = f"{encoded({'alg': algorithm, 'typ': 'JWT', 'kid': self.kid})}.{encoded(claims)}"
        digest = algorithm.replace("RS", "-sha")
        signature = run(["openssl", "dgst", digest, "-sign", self.key], stdin=message.encode()).stdout
        return f"{message}.{encoded(signature)}"
