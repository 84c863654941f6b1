# labelled LABEL: whether an address may be added under it.
labelled() {
    if ip addr add 192.0.2.1/32 dev lo label "$1" 2>/dev/null; then
        ip addr del 192.0.2.1/32 dev lo
        echo taken
    else
        echo refused
    fi
}

check "before: a label of nine letters" taken "$(labelled lo:abcdef)"
check "before: of sixteen" refused "$(labelled lo:abcdefghijklm)"
load label
check "patched: a label of nine letters" refused "$(labelled lo:abcdef)"
check "patched: of five" taken "$(labelled lo:ab)"
unload label
check "after: a label of nine letters" taken "$(labelled lo:abcdef)"
