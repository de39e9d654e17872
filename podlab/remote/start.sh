# The start command of a rented pod: the dead-man switch first, then host keys, then what the image would have run.
#
# lab/start_command.py drops these comments, joins the lines with blanks and fills in @PROGRAM@, @CONFIG@, @BOOT@ and
# @IMAGE_START@. How a provider splits the text into words again is its own affair: so there is no single quote, no
# backslash and no line end in what becomes one word for `sh -c`. POSIX sh only.
#
# A special builtin (`:`, `exec`, `set`, ...) whose redirection fails ends the whole shell, and with it the container: so
# none has one outside of a subshell. An image may run as any user, and its folder of keys may be unwritable.

pl_program=@PROGRAM@;
pl_keys="${PODLAB_ETC_SSH:-/etc/ssh}";

# The host keys that an image brings are known to everybody who has the image. Made anew, once for a container; where
# they cannot be removed, none is told: nobody may take one for this pod alone.
pl_known="";
if [ -z "${PODLAB_SIMULATED:-}" ] && [ ! -e "$pl_keys/.podlab" ]; then
    if command -v ssh-keygen >/dev/null 2>&1; then (rm -f "$pl_keys"/ssh_host_*) 2>/dev/null; fi;
    for pl_each in "$pl_keys"/ssh_host_*_key; do
        if [ -e "$pl_each" ]; then pl_known=yes; fi;
    done;
    if [ -z "$pl_known" ]; then (mkdir -p "$pl_keys" && : >"$pl_keys/.podlab") 2>/dev/null; fi;
fi;

# Whether this container began a while ago already: its first process ended, and the provider starts it again.
pl_again="";
pl_begun="${HOME:-/root}/.podlab/switch/begun";
if [ -e "$pl_begun" ]
    && { ! command -v find >/dev/null 2>&1 || [ -n "$(find "$pl_begun" -mmin -15 2>/dev/null)" ]; };
then pl_again=yes; fi;
(umask 077 && mkdir -p "${pl_begun%/*}" && : >"$pl_begun") 2>/dev/null;

# The switch, and a loop that starts it again should it be killed. It ends by itself (4) when this process is gone.
pl_python="";
for pl_need in "zlib,ssl" zlib; do
    for pl_each in python3 /usr/bin/python3 /usr/local/bin/python3 /opt/conda/bin/python3 python3.13 python3.12
        python3.11 python3.10 python3.9 python3.8 python; do
        if [ -z "$pl_python" ] && command -v "$pl_each" >/dev/null 2>&1
            && "$pl_each" -I -S -c "import sys,$pl_need;sys.exit(sys.version_info<(3,8))" >/dev/null 2>&1;
        then pl_python="$pl_each"; fi;
    done;
done;
if [ -n "$pl_python" ]; then
    (
        trap "" HUP INT TERM QUIT;
        while :; do
            printf %s "$pl_program" | PODLAB_KEYS_KNOWN="$pl_known" "$pl_python" -I -S -u -c @BOOT@ @CONFIG@ $$;
            if [ $? -eq 4 ]; then exit 0; fi;
            sleep 1;
        done
    ) &
else
    echo "podlab: not armed: no python3 with zlib in this image";
fi;

# Programs for login, where the image has none.
if [ ! -x "@IMAGE_START@" ] && ! command -v sshd >/dev/null 2>&1 && [ ! -x /usr/sbin/sshd ]
    && command -v apt-get >/dev/null 2>&1 && [ -z "${PODLAB_SIMULATED:-}" ]; then
    echo "podlab: installing an SSH server, the image has none";
    (apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y openssh-server) >/dev/null 2>&1;
fi;

# Host keys, told before anybody can log in. Without ssh-keygen the switch tells them once they are there.
if [ -n "$pl_known" ]; then
    echo "podlab: the host keys are those of the image, which everybody has: none is told";
elif command -v ssh-keygen >/dev/null 2>&1; then
    mkdir -p "$pl_keys" 2>/dev/null;
    for pl_each in ed25519 ecdsa rsa; do
        if [ ! -e "$pl_keys/ssh_host_${pl_each}_key" ] && [ -z "${PODLAB_SIMULATED:-}" ]; then
            ssh-keygen -q -t "$pl_each" -N "" -C "" -f "$pl_keys/ssh_host_${pl_each}_key" </dev/null >/dev/null 2>&1;
        fi;
    done;
    if [ -z "${PODLAB_SIMULATED:-}" ]; then (: >"$pl_keys/.podlab") 2>/dev/null; fi;
    for pl_each in "$pl_keys"/ssh_host_*_key.pub; do
        if [ -r "$pl_each" ]; then
            read -r pl_kind pl_rest <"$pl_each";
            set -- $(ssh-keygen -l -E sha256 -f "$pl_each" 2>/dev/null);
            if [ -n "${2:-}" ]; then echo "podlab: host key $pl_kind $2"; fi;
        fi;
    done;
    echo "podlab: host keys are told";
fi;
unset pl_program;

# What ends at once would never leave the switch the seconds that it needs to end the pod.
if [ -n "$pl_again" ]; then sleep 10; fi;

if [ -x "@IMAGE_START@" ]; then exec "@IMAGE_START@"; fi;

if [ -n "${PUBLIC_KEY:-}" ]; then
    mkdir -p "${HOME:-/root}/.ssh" && chmod 700 "${HOME:-/root}/.ssh";
    echo "$PUBLIC_KEY" | while read -r pl_each; do
        if ! grep -qxF "$pl_each" "${HOME:-/root}/.ssh/authorized_keys" 2>/dev/null; then
            echo "$pl_each" >>"${HOME:-/root}/.ssh/authorized_keys";
        fi;
    done;
    chmod 600 "${HOME:-/root}/.ssh/authorized_keys";
fi;
mkdir -p /run/sshd 2>/dev/null;
for pl_each in sshd /usr/sbin/sshd; do
    if command -v "$pl_each" >/dev/null 2>&1; then
        exec "$(command -v "$pl_each")" -D -e -o PasswordAuthentication=no -o KbdInteractiveAuthentication=no
            -o PermitRootLogin=prohibit-password -o PubkeyAuthentication=yes;
    fi;
done;
echo "podlab: no SSH server in this image";
while :; do sleep 3600; done
