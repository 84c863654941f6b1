# The packages of klpx and klpx-host come, work and go on a Debian with a stock kernel.
. ./words.sh

for form in deb rpm; do
    case $form in
    deb) exits "dpkg" 0 dpkg -i ./klpx.deb ./klpx-host.deb ;;
    rpm) exits "rpm" 0 rpm -U --nodeps ./klpx.rpm ./klpx-host.rpm ;;
    esac
    check "$form: the unit runs at the next boot" enabled "$(systemctl is-enabled klpx-host.service)"
    exits "$form: klpx" 0 klpx explain changed-data
    said "What to do"
    exits "$form: what is missing is named" 8 klpx doctor
    exits "$form: klpx-host" 12 klpx-host status
    exits "$form: klpx has its commands" 12 klpx status
    for file in bash-completion/completions/klpx bash-completion/completions/klpx-host; do
        check "$form: $file" 1 "$(ls /usr/share/$file | wc -l)"
    done
    case $form in
    deb) exits "dpkg: purged" 0 dpkg -P klpx klpx-host ;;
    rpm) exits "rpm: erased" 0 rpm -e klpx klpx-host ;;
    esac
    check "$form: nothing is left" "" "$(ls /usr/bin/klpx /usr/sbin/klpx-host /usr/lib/systemd/system/klpx-host.service 2>/dev/null)"
done
