# Announcements by multicast: datagrams that propose a server.
package OpenGNSP::Announcement;
use v5.26;
use strict;
use warnings;
use feature 'signatures';
no warnings 'experimental::signatures';
use List::Util qw(any max min);
use Socket qw(AF_INET AF_INET6 inet_ntop inet_pton);

use constant { MAGIC => "OpenGNS\1", OCTETS_MAX => 1024, ADDRESSES_MAX => 8, SECONDS_MIN => 1, SECONDS_MAX => 300 };

my $LABEL = qr/[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?/;

# The announcement in a datagram, or undef: the datagram is dropped.
sub read ($protocol, $datagram) {
    return undef if length $datagram > OCTETS_MAX || substr($datagram, 0, length MAGIC) ne MAGIC;
    my ($message) = $protocol->read_body('server', substr $datagram, length MAGIC);
    return undef if !$message || $message->{type} ne 'announcement';
    $message->{server} = lc $message->{server};
    return undef if length $message->{server} > 253 || $message->{server} !~ /\A$LABEL(?:\.$LABEL)*\z/;
    return undef if $message->{port} < 1 || $message->{port} > 65535;
    my @addresses = map { canonical($_) } ($message->{addresses} // [])->@*;
    return undef if @addresses > ADDRESSES_MAX || any { !defined } @addresses;
    $message->{addresses} = \@addresses if @addresses;
    my $next = $message->{next_seconds};
    $message->{next_seconds} = max(SECONDS_MIN, min(SECONDS_MAX, $next)) if defined $next;
    return $message;
}

# The canonical form of an address that can be connected to, or undef.
sub canonical ($text) {
    my $address = $text =~ /:/ ? inet_pton(AF_INET6, $text) : inet_pton(AF_INET, $text);
    return undef if !defined $address;
    $address = substr $address, 12 if length $address == 16 && $address =~ /\A\0{10}\xff\xff/;
    my $first = ord $address;
    return undef if $address !~ /[^\0]/;                                                  # unspecified
    return undef if length $address == 16 ? $first == 0xff : $first >= 224 && $first < 240;    # multicast
    return undef if $address eq "\xff\xff\xff\xff";                                       # broadcast
    return inet_ntop(length $address == 4 ? AF_INET : AF_INET6, $address);
}

1;
