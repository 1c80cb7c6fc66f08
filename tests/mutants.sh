#!/usr/bin/env bash
# The mutation check: puts the faults of tests/mutants.txt into a copy of core, one at a time, and
# shows which test catches each. A fault that no test catches is a test that is missing.
#
#   tests/mutants.sh                    every fault
#   tests/mutants.sh --first 3          the first three: what CI runs
#   tests/mutants.sh --only ID,ID       these
#   tests/mutants.sh --list             names them, and runs nothing
#
# Suite by suite, quickest first: the unchanged tree has to pass it, and then the faults that are
# not caught yet are put in. Exit code: 0 when every fault is caught, 1 when one survives, 2 when the
# list itself is wrong (its text is not there, or the fault does not compile).
set -euo pipefail
cd "$(dirname "$0")/.."

list=tests/mutants.txt
work=${CARGO_TARGET_DIR:-target}/mutants
# Longer than any suite takes on a slow machine; whoever takes longer is stuck.
limit=600
# How far to optimise, and what to run. Most faults end at the first two, for which compiling would
# take longer than running. The others run for minutes, and have the first in them again, so that
# whatever is added to these packages counts by itself.
suites=(
    "0 -p portolan-sim --test scenarios"
    "0 -p portolan-core --lib"
    "2 -p portolan-core --tests"
    "2 -p portolan-sim --tests"
)

die() {
    echo "mutants: $*" >&2
    exit 2
}

# Cut the list into one folder a fault: file, title, old and new text.
read_list() {
    local line id="" number=0
    ids=()
    rm -rf "$work/faults"
    while IFS= read -r line || [[ -n $line ]]; do
        number=$((number + 1))
        case $line in
            "" | "#"* | "+") ;;
            "["*"] "*)
                id=${line%%]*}
                id=${id#[}
                [[ ! -e $work/faults/$id ]] || die "$list:$number: $id is there twice"
                mkdir -p "$work/faults/$id"
                ids+=("$id")
                printf '%s\n' "${line#*] }" >"$work/faults/$id/title"
                : >"$work/faults/$id/old"
                : >"$work/faults/$id/new"
                ;;
            "- "*) printf '%s\n' "${line#- }" >>"$work/faults/$id/old" ;;
            "+ "*) printf '%s\n' "${line#+ }" >>"$work/faults/$id/new" ;;
            *.rs) printf '%s' "$line" >"$work/faults/$id/file" ;;
            *) die "$list:$number: expected [id] title, a file, - old, + new or a comment" ;;
        esac
    done <"$list"
}

# A copy of what would be committed, with all that is not committed yet. Its files are new, so that
# nothing built from an earlier fault is taken for up to date.
copy_tree() {
    rm -rf "$work/tree"
    mkdir -p "$work/tree"
    git ls-files -z --cached --others --exclude-standard |
        while IFS= read -r -d '' path; do [[ ! -e $path ]] || printf '%s\0' "$path"; done |
        tar --null --files-from=- -cf - | tar -xmf - -C "$work/tree"
}

# Put the fault into the tree. Where a line begins and ends does not count, so that the list
# outlives a change of indentation.
apply() {
    perl -e '
        sub slurp { local $/; open my $in, "<", shift or die "$!"; <$in> // "" }
        my ($file, $fault) = @ARGV;
        my ($text, $old, $new) = (slurp($file), slurp("$fault/old"), slurp("$fault/new"));
        chomp $new;
        my $pattern = join "\\s*\\n\\s*", map { quotemeta s/^\s+|\s+$//gr } split /\n/, $old;
        my $count = () = $text =~ /$pattern/g;
        die "the old text is in $file $count times\n" if $pattern eq "" || $count != 1;
        $text =~ s/$pattern/$new/;
        open my $out, ">", $file or die "$!";
        print $out $text;
    ' "$work/tree/$(cat "$work/faults/$1/file")" "$work/faults/$1"
}

# Back to what it was, and newer than anything that was built from the fault.
restore() {
    local file
    file=$(cat "$work/faults/$1/file")
    cp "$file" "$work/tree/$file"
}

# Run cargo test within a time limit, with core and its player optimised so far.
cargo_test() {
    local limit=$1 level=$2
    shift 2
    (
        cd "$work/tree"
        # Nobody reads how a test failed: no time is spent on that.
        export CARGO_TARGET_DIR=$target CARGO_INCREMENTAL=1 PORTOLAN_CHAOS_SHRINKS=0
        timeout "$limit" cargo test --locked --config profile.dev.debug=0 \
            --config "profile.dev.package.portolan-core.opt-level=$level" \
            --config "profile.dev.package.portolan-sim.opt-level=$level" "$@"
    ) >"$work/out" 2>&1
}

# The first test of the last run that failed.
culprit() {
    local story test
    story=$(grep -m1 -oE 'tests/scenarios/[a-z0-9_]+\.txt' "$work/out" || true)
    test=$(sed -nE 's/^test (.*) \.\.\. FAILED$/\1/p' "$work/out" | head -n 1)
    echo "${story:-${test:-$1}}"
}

# Run one suite over the tree as it stands. Its first failing test is in `caught`, which is empty
# when all pass.
run_suite() {
    local what=$1 suite=$2 begun=$SECONDS code=0
    # shellcheck disable=SC2086 # Every word is one argument.
    if ! cargo_test 3600 $suite --no-run; then
        cat "$work/out" >&2
        die "$what does not compile"
    fi
    # shellcheck disable=SC2086
    cargo_test "$limit" $suite || code=$?
    case $code in
        0) caught="" ;;
        124) caught="$(culprit "$suite") (out of time)" ;;
        *) caught=$(culprit "$suite (code $code)") ;;
    esac
    took=$((SECONDS - begun))
}

row() {
    printf '%-26s %7s  %-84s %s\n' "$@"
}

mkdir -p "$work"
work=$(cd "$work" && pwd)
target=$work/target
read_list
case ${1:-} in
    "") ;;
    --list)
        for id in "${ids[@]}"; do printf '%-26s %s\n' "$id" "$(cat "$work/faults/$id/title")"; done
        exit 0
        ;;
    --first) ids=("${ids[@]:0:${2:?how many}}") ;;
    --only) IFS=, read -ra ids <<<"${2:?which}" ;;
    *) die "expected --first N, --only ID,ID or --list" ;;
esac
for id in "${ids[@]}"; do
    [[ -s $work/faults/$id/file && -s $work/faults/$id/old ]] || die "$list: no whole fault $id"
done

copy_tree
# Before anything is built: does the whole list still fit?
for id in "${ids[@]}"; do
    apply "$id" || die "$list: $id does not fit"
    restore "$id"
done
row id seconds fault "caught by"
declare -A seconds
left=("${ids[@]}")
for suite in "${suites[@]}"; do
    # Where all are caught, the longer suites have nothing to do.
    [[ ${#left[@]} -gt 0 ]] || break
    run_suite "the tree without any fault" "$suite"
    [[ -z $caught ]] || die "the tree without any fault fails: $caught"
    row "(none)" "$took" "${suite#* }" –
    faults=("${left[@]}")
    left=()
    for id in "${faults[@]}"; do
        apply "$id"
        run_suite "$id" "$suite"
        restore "$id"
        seconds[$id]=$((${seconds[$id]:-0} + took))
        if [[ -n $caught ]]; then
            row "$id" "${seconds[$id]}" "$(cat "$work/faults/$id/title")" "$caught"
        else
            left+=("$id")
        fi
    done
done
for id in "${left[@]}"; do
    row "$id" "${seconds[$id]}" "$(cat "$work/faults/$id/title")" NOTHING
done
echo "${#ids[@]} faults, ${#left[@]} survived"
[[ ${#left[@]} -eq 0 ]]
