"""See scripts/make-roots."""

from __future__ import annotations

import base64
import re
import textwrap
from pathlib import Path

import certifi
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

NAMES = (
    "GTS Root R1",
    "GTS Root R3",
    "GTS Root R4",
    "ISRG Root X1",
    "ISRG Root X2",
    "SSL.com TLS RSA Root CA 2022",
    "SSL.com TLS ECC Root CA 2022",
    "SSL.com Root Certification Authority RSA",
    "SSL.com Root Certification Authority ECC",
    "DigiCert Global Root G2",
    "DigiCert Global Root G3",
    "Amazon Root CA 1",
    "Amazon Root CA 3",
    "USERTrust RSA Certification Authority",
    "USERTrust ECC Certification Authority",
    "Sectigo Public Server Authentication Root E46",
    "Sectigo Public Server Authentication Root R46",
)
HEAD = '''"""Certificate authorities that the switch brings along, for pods whose image has none. Part of the watchdog.

Written by scripts/make-roots from certifi's bundle (Mozilla's list). DER in base64, an empty line between two.
"""

ROOTS = """\\
'''  # fmt: skip


def main() -> None:
    pieces = re.findall(r"-----BEGIN.*?END CERTIFICATE-----\n", Path(certifi.where()).read_text(), re.DOTALL)
    found = {}
    for piece in pieces:
        certificate = x509.load_pem_x509_certificate(piece.encode())
        for name in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME):
            found[name.value] = base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()
    target = Path(__file__).parent.parent / "podlab" / "remote" / "roots.py"
    told = "\n\n".join(textwrap.fill(found[name], 116) for name in NAMES)
    target.write_text(HEAD + told + '\n"""\n')
    print(f"{target.name}: {len(NAMES)} authorities, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
