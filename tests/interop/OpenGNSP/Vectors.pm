# What this implementation makes of the inputs of vectors.json. It does not see the results there: the caller compares.
package OpenGNSP::Vectors;
use v5.26;
use strict;
use warnings;
use feature 'signatures';
no warnings 'experimental::signatures';
use OpenGNSP::Announcement;
use OpenGNSP::Digest;
use OpenGNSP::End;

# The results of each group, in the order of its vectors; octets arrive in pieces of the length `piece`.
sub results ($protocol, $vectors, $piece) {
    my @octets = map { OpenGNSP::Digest::octets($protocol, $_->{row}, $_) } map { $_->{row} } $vectors->{digests}->@*;
    my %result = (
        accepted => sub ($vector) { message($protocol, $vector) },
        variants => sub ($vector) { message($protocol, $vector) },
        refused => sub ($vector) { refused($protocol, $vector, $piece) },
        parts => sub ($vector) { parts($protocol, $vector, $piece) },
        announcements => sub ($vector) { OpenGNSP::Announcement::read($protocol, pack 'H*', $vector->{datagram}) },
        sums => sub ($vector) { OpenGNSP::Digest::sum(@octets[$vector->{rows}->@*]) },
        instances => sub ($vector) {
            OpenGNSP::Digest::sum(map { OpenGNSP::Digest::instance_octets($_) } $vector->{instances}->@*);
        },
    );
    my @digests = map { { octets => unpack('H*', $_), digest => OpenGNSP::Digest::blake2b($_) } } @octets;
    my %results = (digests => \@digests);
    for my $group (keys %result) {
        $results{$group} = [map { $result{$group}->($_) } $vectors->{$group}->@*];
    }
    return \%results;
}

# A frame as read here, and as written here.
sub message ($protocol, $vector) {
    my ($length, $number, $body) = unpack 'N N a*', pack 'H*', $vector->{frame};
    my ($message, $problem) = $protocol->read_body($vector->{from}, $body);
    my $written = $message && unpack 'H*', $protocol->write_frame($number, $message);
    return { number => $number, message => $message, problem => $problem, written => $written };
}

# Octets to an end, in pieces.
sub feed ($end, $octets, $piece) {
    return map { $end->feed($_) } unpack "(a$piece)*", $octets;
}

# An end of a session as a vector wants it: what came before has been read, and the requests have been sent.
sub end ($protocol, $vector, $role, $piece) {
    my $end = OpenGNSP::End->new($protocol, $role);
    feed($end, pack('H*', $_), $piece) for ($vector->{before} // [])->@*;
    $end->asked($_) for 1 .. $vector->{asked};
    return $end;
}

sub refused ($protocol, $vector, $piece) {
    my $end = end($protocol, $vector, $vector->{to}, $piece);
    my ($refused) = grep { $_->[0] eq 'refused' } feed($end, pack('H*', $vector->{frame}), $piece);
    my (undef, $number, $code) = ($refused // [])->@*;
    return { number => $number, code => $code, session => $end->{state} eq 'ended' ? 'ended' : 'alive' };
}

sub parts ($protocol, $vector, $piece) {
    my $end = OpenGNSP::End->new($protocol, 'client');
    $end->{state} = 'open';
    $end->asked($_) for 1 .. $vector->{asked};
    my @frames = map { pack 'H*', $_ } $vector->{frames}->@*;
    my $last = pop @frames;
    my @early = feed($end, join('', @frames), $piece);
    my ($event, @more) = feed($end, $last, $piece);
    return { early => scalar @early, more => scalar @more, number => $event->[1], message => $event->[2] };
}

1;
