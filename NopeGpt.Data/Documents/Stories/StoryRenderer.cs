namespace NopeGpt.Data.Documents.Stories;

/// <summary>Writes a story from its facts into a buffer that is used again and again. Not safe for concurrent use.</summary>
internal sealed class StoryRenderer
{
    /// <summary>So many characters, and the parts that a story can do without are left out: some 200 words.</summary>
    private const int LongEnough = 990, LongEnoughForHelp = 760;

    private readonly StoryGrammar _grammar = StoryGrammar.Instance;
    private readonly ulong[] _used = new ulong[StoryGrammar.Instance.Rules.Length];
    private char[] _text = new char[4096];
    private int _length;
    private StoryFacts _facts = null!;
    private StoryRandom _random;

    /// <summary>The story; the memory is this renderer's and holds until the next call.</summary>
    public ReadOnlySpan<char> Render(StoryFacts facts, StoryRandom random)
    {
        (_facts, _random, _length) = (facts, random, 0);
        Array.Clear(_used);
        Plot plot = facts.Plot;
        WriteRule(_grammar.Rule("open"));
        Append(" ");
        Write(plot.Want);
        Append("\n\n");
        Write(plot.Try);
        Append(_random.Chance(40) ? "\n\n" : " ");
        Write(facts.Turn.Meet);
        Append(_random.Chance(60) ? "\n\n" : " ");
        if (_length < LongEnoughForHelp && _random.Chance(85))
        {
            Write(plot.Help);
            Append(" ");
        }
        Write(facts.Turn.Solve);
        Append("\n\n");
        Write(plot.End);
        if (_length < LongEnough && _random.Chance(70))
        {
            Append(" ");
            WriteRule(_grammar.Rule("close"));
        }
        return _text.AsSpan(0, _length);
    }

    private void Write(Template[] variants) => Write(_random.Pick(variants));

    private void Write(Template template)
    {
        foreach (ref readonly Piece piece in template.Pieces.AsSpan())
        {
            switch (piece.Kind)
            {
                case PieceKind.Text: Append(piece.Text); break;
                case PieceKind.Slot: WriteSlot(piece.Slot, piece.Capital); break;
                case PieceKind.Rule: WriteRule(piece.Rule); break;
                default: Write(piece.Options); break;
            }
        }
    }

    /// <summary>A rule's variant, and not the same one twice in a story while there are others.</summary>
    private void WriteRule(int rule)
    {
        Template[] variants = _grammar.Rules[rule];
        int chosen = _random.Below(variants.Length);
        for (int tries = 0; tries < variants.Length && (_used[rule] >> chosen & 1) != 0; tries++) chosen = (chosen + 1) % variants.Length;
        _used[rule] |= 1ul << chosen;
        Write(variants[chosen]);
    }

    private void WriteSlot(Slot slot, bool capital)
    {
        int start = _length;
        Template? template = slot switch
        {
            Slot.Wish => _facts.Wish.To,
            Slot.Goal => _facts.Wish.Goal,
            Slot.Traitline => _facts.Trait.Shows,
            Slot.Traitecho => _facts.Trait.Changed,
            _ => null,
        };
        if (template is null) Append(Word(slot));
        else Write(template);
        if (capital) _text[start] = char.ToUpperInvariant(_text[start]);
    }

    private string Word(Slot slot) => slot switch
    {
        Slot.H => _facts.Hero.Name,
        Slot.F => _facts.Friend.Name,
        Slot.E => _facts.Elder.Name,
        Slot.He => _facts.Hero.Pronouns.He,
        Slot.Him => _facts.Hero.Pronouns.Him,
        Slot.His => _facts.Hero.Pronouns.His,
        Slot.Himself => _facts.Hero.Pronouns.Himself,
        Slot.Kind => _facts.Hero.Kind,
        Slot.Akind => _facts.Hero.Described,
        Slot.Hand => _facts.Hero.Hand,
        Slot.Hands => _facts.Hero.Hands,
        Slot.Trait => _facts.Trait.Word,
        Slot.Fhe => _facts.Friend.Pronouns.He,
        Slot.Fhim => _facts.Friend.Pronouns.Him,
        Slot.Fhis => _facts.Friend.Pronouns.His,
        Slot.Afkind => _facts.Friend.Described,
        Slot.Fhand => _facts.Friend.Hand,
        Slot.Fhands => _facts.Friend.Hands,
        Slot.Ehe => _facts.Elder.Pronouns.He,
        Slot.Ehim => _facts.Elder.Pronouns.Him,
        Slot.Ehis => _facts.Elder.Pronouns.His,
        Slot.Thing => _facts.Thing.Full,
        Slot.Athing => _facts.Thing.AFull,
        Slot.Noun => _facts.Thing.Noun,
        Slot.Anoun => _facts.Thing.ANoun,
        Slot.Place => _facts.Place.Name,
        Slot.Inplace => _facts.Place.In,
        Slot.Inhome => _facts.Home,
        Slot.When => _facts.When,
        Slot.Food => _facts.Food,
        Slot.Creature => _facts.Creature.Noun,
        Slot.Acreature => _facts.Creature.AFull,
        Slot.Spot1 => _facts.Spot1,
        Slot.Spot2 => _facts.Spot2,
        Slot.Spot3 => _facts.Spot3,
        Slot.Hide => _facts.Hide,
        Slot.Sound => _facts.Sound,
        _ => throw new InvalidOperationException($"slot {slot} has no word"),
    };

    private void Append(string text)
    {
        if (_length + text.Length > _text.Length) Array.Resize(ref _text, Math.Max(_text.Length * 2, _length + text.Length));
        text.CopyTo(_text.AsSpan(_length));
        _length += text.Length;
    }
}
