#!/usr/bin/env bash
# Holds libmtr.so to its promises about symbols: it needs libc (and its loader) only, nothing
# newer than the floor (glibc 2.35), has no dynamic TLS, and exports nothing but the hooks.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --quiet --release -p mtr-preload
library=target/release/libmtr.so

fail() { echo "tests/exports.sh: $*" >&2; exit 1; }
same() { # TITLE EXPECTED ACTUAL
    [ "$2" = "$3" ] || fail "$1 differ (< expected, > found):
$(diff <(echo "$2") <(echo "$3"))"
}

same "undefined symbols" "$(cat <<'LIST'
_ITM_deregisterTMCloneTable
_ITM_registerTMCloneTable
__cxa_atexit@GLIBC_2.2.5
__cxa_finalize@GLIBC_2.2.5
__errno_location@GLIBC_2.2.5
__gmon_start__
__libc_single_threaded@GLIBC_2.32
__libc_stack_end@GLIBC_2.2.5
__register_atfork@GLIBC_2.3.2
_dl_find_object@GLIBC_2.35
bcmp@GLIBC_2.2.5
dlsym@GLIBC_2.34
environ@GLIBC_2.2.5
getauxval@GLIBC_2.16
memcpy@GLIBC_2.14
memmove@GLIBC_2.2.5
memset@GLIBC_2.2.5
pthread_key_create@GLIBC_2.34
pthread_setspecific@GLIBC_2.34
strlen@GLIBC_2.2.5
LIST
)" "$(nm -D --undefined-only $library | awk '{print $NF}' | LC_ALL=C sort)"

same "exported symbols" "$(cat <<'LIST'
_Exit
_ZdaPv
_ZdaPvRKSt9nothrow_t
_ZdaPvSt11align_val_t
_ZdaPvSt11align_val_tRKSt9nothrow_t
_ZdaPvm
_ZdaPvmSt11align_val_t
_ZdlPv
_ZdlPvRKSt9nothrow_t
_ZdlPvSt11align_val_t
_ZdlPvSt11align_val_tRKSt9nothrow_t
_ZdlPvm
_ZdlPvmSt11align_val_t
_Znam
_ZnamRKSt9nothrow_t
_ZnamSt11align_val_t
_ZnamSt11align_val_tRKSt9nothrow_t
_Znwm
_ZnwmRKSt9nothrow_t
_ZnwmSt11align_val_t
_ZnwmSt11align_val_tRKSt9nothrow_t
_exit
aligned_alloc
calloc
cfree
dlclose
execl
execle
execlp
execv
execve
execveat
execvp
execvpe
fexecve
free
free_aligned_sized
free_sized
malloc
malloc_usable_size
memalign
mtrace
muntrace
popen
posix_memalign
posix_spawn
posix_spawnp
prctl
pvalloc
realloc
reallocarray
syscall
system
valloc
LIST
)" "$(nm -D --defined-only $library | awk '{print $NF}' | LC_ALL=C sort)"

same "needed libraries" "libc.so.6
ld-linux-x86-64.so.2" \
    "$(readelf -d $library | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p')"
readelf -dW $library | grep -q 'FLAGS.*STATIC_TLS' \
    || fail "its TLS is not static: a hook could call the loader, which allocates"
size=$((16#$(readelf -lW $library | awk '$1 == "TLS" { print substr($6, 3) }')))
[ "$size" -le 4096 ] || fail "it has $size bytes of TLS, at most 4,096 expected"
echo "libmtr.so: symbols as promised"
