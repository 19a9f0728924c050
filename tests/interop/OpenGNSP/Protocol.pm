# The messages of OpenGNSP as the text describes them. The tables of fields in protocols/ are read at run time:
# a field that they do not name is unknown here, and a field that they describe wrongly is read wrongly.
package OpenGNSP::Protocol;
use v5.26;
use strict;
use warnings;
use feature 'signatures';
no warnings qw(experimental::signatures portable);    # 64-bit integers are a matter of course
use JSON::PP ();
use List::Util 'any';
use MIME::Base64 ();
use OpenGNSP::MessagePack
    qw(read_whole members write_integer write_float write_string write_octets write_array write_map);

# { fields => {name => [[field, type, default or undef if required]]}, from => {message => "client" or "server"},
#   reply => {message => 1}, key => {row => [fields]}, digested => {row => [fields]} }
sub read_tables ($folder) {
    my %tables = (fields => {}, from => {}, reply => { refusal => 1 }, key => {}, digested => {});
    for my $page (qw(concepts messages requests replies behaviour/several-servers behaviour/digests)) {
        open my $file, '<:encoding(UTF-8)', "$folder/opengnsp/$page.md" or die "$folder/opengnsp/$page.md: $!\n";
        my $text = do { local $/; <$file> };
        $tables{reply}{$1} = 1 while $text =~ /Reply:\s+`([a-z-]+)`/g;
        my $of_rows = $page eq 'behaviour/digests' ? $tables{digested} : $tables{key};
        for my $section (split /^(?=#+ )/m, $text) {
            $of_rows->{ $_->[0] } = [$_->[1] =~ /`(\w+)`/g] for table_rows($section, 'row');
            my ($name) = $section =~ /\A#+ `([a-z-]+)`$/m or next;
            $tables{fields}{$name} =
                [map { [$_->[0], read_type($_->[1]), read_default($_->[2])] } table_rows($section, 'field')];
            $tables{from}{$name} = 'client' if $page eq 'requests' || $section =~ /^(Client|Host) ->/m;
            $tables{from}{$name} = 'server' if $section =~ /^Server ->/m;
        }
    }
    $tables{from}{$_} = 'server' for keys $tables{reply}->%*;
    return \%tables;
}

# The cells of each row of the tables whose first column is headed so; the first cell of a row is a name.
sub table_rows ($section, $heading) {
    my ($current, @rows) = '';
    for my $line (split /\n/, $section) {
        my (undef, @cells) = map { s/^\s+|\s+$//gr } split /\|/, $line;
        $current = '' if $line !~ /^\|/;
        next if $line !~ /^\|/;
        $current ||= $cells[0];
        push @rows, [$1, @cells[1 .. $#cells]] if $current eq $heading && $cells[0] =~ /^`(\w+)`$/;
    }
    return @rows;
}

sub read_default ($cell) {
    return undef if $cell eq 'required';
    return { value => $cell eq 'all defaults' ? {} : JSON::PP->new->allow_nonref->decode($cell =~ s/^nil$/null/r) };
}

sub read_type ($cell) {
    my $text = $cell =~ s/\[([^]]*)\]\([^)]*\)/$1/gr;
    my @names = $text =~ /`([^`]+)`/g;
    return { read_type($1)->%*, nil => 1 } if $text =~ /^(.*) or nil$/;
    return { kind => 'list', of => read_type($1 =~ s/^(string|integer|row|list)s\b/$1/r) } if $text =~ /^list of (.*)$/;
    return { kind => 'map', of => read_type($1 =~ s/^(string|integer|list)s\b/$1/r) } if $text =~ /^map of (.*)$/;
    return { kind => 'word', words => [@names, $text =~ /or ""$/ ? '' : ()], states => !!($text =~ /the states of/) }
        if $text =~ /^one of (?!the codes)/;
    return { kind => 'string' } if $text =~ /^(string|one of the codes)/;
    return { kind => 'structure', names => \@names, tag => $text =~ /row/ ? 'row' : @names > 1 ? 'log' : '' }
        if @names || $text eq 'row';
    return { kind => $text };
}

sub new ($class, $folder) { return bless read_tables($folder), $class }

sub is_default ($value, $default) {
    return ref $value eq 'ARRAY' ? !@$value : ref $value eq 'HASH' ? !%$value : ($value // '') eq ($default // '');
}

sub words ($self, $type) {
    my ($state) = grep { $type->{states} && $_->[0] eq 'state' } $self->{fields}{listener}->@*;
    return ($type->{words}->@*, $state ? $state->[1]{words}->@* : ());
}

# The value of a node: fields that have their default are left out.
sub read_value ($self, $type, $node) {
    my ($kind, $value) = @$node;
    my $wanted = $type->{kind};
    return undef if $kind eq 'nil' && $type->{nil};
    return $self->read_structure($type, $node) if $wanted eq 'structure';
    if ($wanted eq 'map') {
        my $members = members($node);
        return { map { $_ => $self->read_value($type->{of}, $members->{$_}) } keys %$members };
    }
    my $expected = { list => 'array', word => 'string', seconds => 'float', share => 'float' }->{$wanted} // $wanted;
    die "$kind for $wanted\n" if $kind ne $expected && !($expected eq 'float' && $kind eq 'integer');
    return [map { $self->read_value($type->{of}, $_) } @$value] if $wanted eq 'list';
    return bless \$value, 'OpenGNSP::Octets' if $wanted eq 'octets';
    die "$value is none of the words\n" if $wanted eq 'word' && !any { $_ eq $value } $self->words($type);
    die "$value is no integer here\n" if $wanted eq 'integer' && !($value >= 0 && $value <= 0x7fff_ffff_ffff_ffff);
    die "$value is not finite\n" if $expected eq 'float' && !(abs $value < 9**9**9);
    die "$value is no share\n" if $wanted eq 'share' && !($value >= 0 && $value <= 1);
    return $value;
}

sub read_structure ($self, $type, $node) {
    my $members = members($node);
    my ($name, %read) = $type->{names}[0];
    if (my $tag = $type->{tag}) {
        $read{$tag} = $name = $self->read_value({ kind => 'string' }, $members->{$tag} // die "no $tag\n");
        my @names = $type->{names}->@* ? $type->{names}->@* : keys $self->{key}->%*;
        die "$tag $name is not known here\n" if !any { $_ eq $name } @names;
    }
    for my $field ($self->{fields}{$name}->@*) {
        my ($key, $of, $default) = @$field;
        die "$name without $key\n" if !$default && !$members->{$key};
        next if !$members->{$key};
        my $value = $self->read_value($of, $members->{$key});
        $read{$key} = $value if !$default || !is_default($value, $default->{value});
    }
    return \%read;
}

sub write_value ($self, $type, $value) {
    my $kind = $type->{kind};
    return "\xc0" if !defined $value;
    return write_string($value)    if $kind eq 'string' || $kind eq 'word';
    return write_integer($value)   if $kind eq 'integer';
    return write_float($value)     if $kind eq 'seconds' || $kind eq 'share';
    return $value ? "\xc3" : "\xc2" if $kind eq 'boolean';
    return write_octets(ref $value ? $$value : $value) if $kind eq 'octets';
    return write_array(map { $self->write_value($type->{of}, $_) } @$value) if $kind eq 'list';
    return write_map(map { (write_string($_), $self->write_value($type->{of}, $value->{$_})) } sort keys %$value)
        if $kind eq 'map';
    my $tag = $type->{tag};
    my $name = $tag ? $value->{$tag} : $type->{names}[0];
    return write_map(
        $tag ? (write_string($tag), write_string($name)) : (),
        map { (write_string($_->[0]), $self->write_value($_->[1], $value->{ $_->[0] })) }
        grep { exists $value->{ $_->[0] } } $self->{fields}{$name}->@*
    );
}

# --- Messages and frames ---

sub write_frame ($self, $number, $message) {
    my $body = $self->write_value({ kind => 'structure', tag => 'type' }, $message);
    return pack('NN', length $body, $number) . $body;
}

# The message in a body from one of the two ends, or undef and the code of the refusal.
sub read_body ($self, $from, $body) {
    my $node = eval { read_whole($body) };
    my $type = $node && eval { members($node)->{type} };
    return (undef, 'malformed') if !$type || $type->[0] ne 'string';
    return (undef, 'unknown-message') if ($self->{from}{ $type->[1] } // '') ne $from;
    my $message = eval { $self->read_structure({ tag => 'type', names => [$type->[1]] }, $node) };
    return $message ? $message : (undef, 'malformed');
}

package OpenGNSP::Octets;    # a value of the type octets
sub TO_JSON { return MIME::Base64::encode_base64(${ $_[0] }, '') }

1;
