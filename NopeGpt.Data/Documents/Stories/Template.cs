namespace NopeGpt.Data.Documents.Stories;

/// <summary>What a slot stands for. Names as in the text files; the names of people are one capital letter.</summary>
internal enum Slot
{
    H, F, E,
    He, Him, His, Himself, Kind, Akind, Hand, Hands, Trait, Traitline, Traitecho,
    Fhe, Fhim, Fhis, Afkind, Fhand, Fhands,
    Ehe, Ehim, Ehis,
    Thing, Athing, Noun, Anoun,
    Place, Inplace, Inhome, When, Food, Creature, Acreature,
    Spot1, Spot2, Spot3, Hide, Sound, Wish, Goal,
}

internal enum PieceKind { Text, Slot, Rule, Choice }

internal readonly record struct Piece(PieceKind Kind, string Text, Slot Slot, bool Capital, int Rule, Template[] Options);

/// <summary>A sentence or more with {slot}, {%rule} and [a|b]; parsed once.</summary>
internal sealed class Template
{
    public required Piece[] Pieces { get; init; }
    public required string Source { get; init; }

    /// <param name="source">the text of the template</param>
    /// <param name="rule">number of a rule from its name; throws for an unknown one</param>
    public static Template Parse(string source, Func<string, int> rule)
    {
        int position = 0;
        string text = source.Replace("\\n", "\n", StringComparison.Ordinal);
        Template template = Parse(text, ref position, rule);
        return position == text.Length ? template : throw new FormatException($"'{text[position]}' without '[' in the story template '{source}'");
    }

    private static Template Parse(string text, ref int position, Func<string, int> rule)
    {
        List<Piece> pieces = [];
        int start = position, literal = position;
        while (position < text.Length && text[position] is not ('|' or ']'))
        {
            char c = text[position];
            if (c is not ('{' or '[')) { position++; continue; }
            if (position > literal) pieces.Add(new(PieceKind.Text, text[literal..position], default, false, 0, []));
            pieces.Add(c == '{' ? ParseSlot(text, ref position, rule) : ParseChoice(text, ref position, rule));
            literal = position;
        }
        if (position > literal) pieces.Add(new(PieceKind.Text, text[literal..position], default, false, 0, []));
        return new Template { Pieces = [.. pieces], Source = text[start..position] };
    }

    private static Piece ParseChoice(string text, ref int position, Func<string, int> rule)
    {
        List<Template> options = [];
        do
        {
            position++;
            options.Add(Parse(text, ref position, rule));
        }
        while (position < text.Length && text[position] == '|');
        if (position == text.Length) throw new FormatException($"'[' without ']' in the story template '{text}'");
        position++;
        return new(PieceKind.Choice, "", default, false, 0, [.. options]);
    }

    private static Piece ParseSlot(string text, ref int position, Func<string, int> rule)
    {
        int end = text.IndexOf('}', position);
        if (end < 0) throw new FormatException($"'{{' without '}}' in the story template '{text}'");
        string name = text[(position + 1)..end];
        position = end + 1;
        if (name.StartsWith('%')) return new(PieceKind.Rule, "", default, false, rule(name[1..]), []);
        if (!Enum.TryParse(name, ignoreCase: true, out Slot slot) || char.IsAsciiDigit(name[0])) throw new FormatException($"unknown slot '{name}' in the story template '{text}'");
        return new(PieceKind.Slot, "", slot, char.IsUpper(name[0]), 0, []);
    }
}
