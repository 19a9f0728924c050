# One end of a session as it reads: octets go in, events come out. An event is ["message", number, message], or
# ["refused", number, code, text]: by a server, what it sends; at a client, what became of its request.
package OpenGNSP::End;
use v5.26;
use strict;
use warnings;
use feature 'signatures';
no warnings qw(experimental::signatures portable);    # 64-bit integers are a matter of course
use List::Util 'any';

use constant {
    VERSION         => 1,
    HEADER          => 8,
    FROM_HOST_MAX   => 65_536,           # the limits of the text: FRAME_MAX_FROM_HOST,
    FROM_SERVER_MAX => 16_777_216,       # FRAME_MAX_FROM_SERVER,
    PARTS_MAX       => 1_073_741_824,    # MESSAGE_MAX
};


sub new ($class, $protocol, $role) {
    my $peer = $role eq 'client' ? 'server' : 'client';
    my $frame_max = $role eq 'client' ? FROM_SERVER_MAX : FROM_HOST_MAX;
    return bless { protocol => $protocol, role => $role, peer => $peer, frame_max => $frame_max, state => 'greeting',
        buffer => '', open => {}, parts => {}, parts_read => 0,
        part_count => 0 }, $class;
}

# Note that the client has sent a request.
sub asked ($self, $number) { $self->{open}{$number} = 1 }

sub feed ($self, $octets) {
    $self->{buffer} .= $octets;
    my @events;
    while ($self->{state} ne 'ended' && length $self->{buffer} >= HEADER) {
        my ($length, $number) = unpack 'NN', $self->{buffer};
        if ($length > $self->{frame_max}) {
            push @events, $self->violation('too-large');
            last;
        }
        last if length $self->{buffer} < HEADER + $length;
        my $body = substr substr($self->{buffer}, 0, HEADER + $length, ''), HEADER;
        my $reads = $self->{role} eq 'client' ? \&client_reads : \&server_reads;
        push @events, $self->$reads($number, $body);
    }
    return @events;
}

sub violation ($self, $code) {
    $self->{state} = 'ended';
    return $self->{role} eq 'server' ? ['refused', 0, $code] : ();
}

sub server_reads ($self, $number, $body) {
    my ($message, $problem) = $self->{protocol}->read_body('client', $body);
    if ($self->{state} eq 'greeting') {
        return $self->violation($problem) if $problem;
        return $self->violation('out-of-turn') if $message->{type} ne 'hello';
        return $self->violation('unsupported-version') if !any { $_ == VERSION } $message->{versions}->@*;
        $self->{state} = 'open';
        return ['message', $number, $message];
    }
    if ($problem) {
        return () if !$number && $problem eq 'unknown-message';
        return $self->violation($problem) if !$number || $self->{open}{$number};
        return ['refused', $number, $problem];
    }
    return ['message', $number, $message] if $message->{type} eq 'acknowledge';
    return $self->violation('out-of-turn') if $message->{type} eq 'hello' || !$number || $self->{open}{$number};
    $self->{open}{$number} = 1;
    return ['message', $number, $message];
}

sub client_reads ($self, $number, $body, $of_parts = 0) {
    my ($message, $problem) = $self->{protocol}->read_body('server', $body);
    my $type = $message ? $message->{type} : '';
    if ($self->{state} eq 'greeting') {
        my $welcome = $type eq 'welcome' && $message->{version} == VERSION;
        $self->{state} = $welcome ? 'open' : 'ended';
        return $welcome || $type eq 'refusal' || $type eq 'goodbye' ? ['message', $number, $message] : ();
    }
    return $self->violation('out-of-turn') if $number && !$self->{open}{$number};
    return $self->part($number, $message, $of_parts) if $type eq 'part';
    if ($number) {
        delete $self->{open}{$number};
        $self->drop_parts($number);
        return ['refused', $number, $message->{code}, $message->{message}] if $type eq 'refusal';
        return ['message', $number, $message] if $message && $self->{protocol}{reply}{$type};
        return ['refused', $number, $problem // 'unknown-message'];
    }
    if ($type eq 'goodbye' || $type eq 'refusal') {
        $self->{state} = 'ended';
        return ['message', 0, $message];
    }
    return $self->violation('out-of-turn') if exists $self->{parts}{0};
    return () if ($problem // '') eq 'unknown-message';
    return $self->violation('out-of-turn') if $problem || $type eq 'welcome' || $self->{protocol}{reply}{$type};
    return ['message', 0, $message];
}

sub part ($self, $number, $part, $of_parts) {
    $self->{part_count}++;
    $self->{parts_read} += length $part->{octets}->$*;
    return $self->violation('out-of-turn') if $of_parts || $self->{parts_read} > PARTS_MAX;
    $self->{parts}{$number} .= $part->{octets}->$*;
    return () if !$part->{last};
    return $self->client_reads($number, $self->drop_parts($number), 1);
}

# Forget the parts with a number, and return what they have brought.
sub drop_parts ($self, $number) {
    my $octets = delete $self->{parts}{$number} // '';
    $self->{parts_read} -= length $octets;
    return $octets;
}

1;
