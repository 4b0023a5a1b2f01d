namespace NopeGpt.Data.Tokenization;

/// <summary>Reads how text is changed, cut and put together again from a tokenizer.json: normalizer, pre_tokenizer, decoder and post_processor.
/// What could change an id and is not known is refused.</summary>
internal sealed class TextRulesReader
{
    private const string Space = " ";

    /// <summary>Patterns as they stand in published files. Possessive quantifiers and the order of the contractions change nothing; \s++$ does only
    /// where \s*[\r\n] follows it.</summary>
    private static readonly Dictionary<string, WordPattern> _patterns = new()
    {
        [WordSplitter.Pattern] = WordPattern.Trained,
        [@"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"] = WordPattern.Gpt2,
        [@"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"] = WordPattern.Gpt2,
        [@"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"] = WordPattern.Gpt2,
        [@"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"] = WordPattern.Cl100k,
        [@"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"] = WordPattern.Cl100k,
        [@"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"] = WordPattern.Cl100kWholeEnd,
        [@"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"] = WordPattern.Cl100kSingleDigits,
        [@"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"] = WordPattern.O200k,
    };

    private readonly List<TextChange> _changes = [];
    private readonly List<(string From, string To)> _replaced = [];
    private WordPattern? _pattern;
    private bool _byteFallback, _fused, _strips;

    /// <summary>Tokens are written in the byte-level alphabet.</summary>
    public bool ByteLevel { get; private set; }

    /// <summary>What the post_processor puts before and after a text, as special tokens by name.</summary>
    public List<(string Name, JsonField Ids)> Before { get; } = [];

    /// <inheritdoc cref="Before"/>
    public List<(string Name, JsonField Ids)> After { get; } = [];

    public TextRules Rules => new() { Changes = _changes, Pattern = _pattern ?? WordPattern.Whole, Characters = !ByteLevel, StripsSpace = _strips };

    public void Read(JsonField root)
    {
        if (root.Given("normalizer") is { } normalizer) Normalizer(normalizer);
        if (root.Given("pre_tokenizer") is { } cutter) PreTokenizer(cutter);
        if (root.Given("post_processor") is { } processor) PostProcessor(processor);
        Decoder(root["decoder"]);
        if (!ByteLevel && !_byteFallback) throw root["decoder"].Refused("its tokens for bytes (<0x00> to <0xFF>) need a ByteFallback decoder");
        if (!ByteLevel && _strips && !_fused) throw root["decoder"].Refused("a Strip before Fuse would strip every token");
    }

    /// <summary>The text that a token of this spelling stands for.</summary>
    public string Spelled(string token)
    {
        foreach ((string from, string to) in _replaced) token = token.Replace(from, to, StringComparison.Ordinal);
        return token;
    }

    private void Normalizer(JsonField field)
    {
        switch (field["type"].Text())
        {
            case "Sequence":
                field.Only("type", "normalizers");
                foreach (JsonField part in field["normalizers"].Items()) Normalizer(part);
                break;
            case "Prepend":
                field.Only("type", "prepend");
                _changes.Add(new(null, NotEmpty(field["prepend"])));
                break;
            case "Replace":
                (string from, string to) = Replace(field);
                _changes.Add(new(from, to));
                break;
            default: throw field["type"].Refused("this normalizer is not known here; Prepend, Replace and a Sequence of them are");
        }
    }

    private void PreTokenizer(JsonField field)
    {
        if (ByteLevel) throw field.Refused("nothing can follow the ByteLevel pre-tokenizer");
        switch (field["type"].Text())
        {
            case "Sequence":
                field.Only("type", "pretokenizers");
                foreach (JsonField part in field["pretokenizers"].Items()) PreTokenizer(part);
                break;
            case "Split": Split(field); break;
            case "ByteLevel":
                field.Only("type", "add_prefix_space", "trim_offsets", "use_regex");
                if (field.Flag("add_prefix_space", true))
                {
                    if (_pattern is not null) throw field.Refused("with add_prefix_space after another pre-tokenizer every word would get a space");
                    _changes.Add(new(null, Space, Once: true));
                }
                if (field.Flag("use_regex", true)) Cut(field, WordPattern.Gpt2);
                ByteLevel = true;
                break;
            case "Metaspace": Metaspace(field); break;
            default: throw field["type"].Refused("this pre-tokenizer is not known here; ByteLevel, Split by a known pattern, Metaspace and a Sequence of them are");
        }
    }

    private void Split(JsonField field)
    {
        field.Only("type", "pattern", "behavior", "invert");
        JsonField pattern = field["pattern"];
        pattern.Only("Regex");
        if (!_patterns.TryGetValue(pattern["Regex"].Text(), out WordPattern known)) throw pattern["Regex"].Refused("this pattern of the pre-tokenizer is not one of those known here, so its ids would come out wrong");
        // The patterns leave nothing between their matches, so that both forms mean the matches themselves.
        bool matches = (field["behavior"].Text(), field.Flag("invert", false)) is ("Isolated", false) or ("Removed", true);
        if (!matches) throw field.Refused("only the behavior Isolated without invert, or Removed with it, is known here");
        Cut(field, known);
    }

    private void Cut(JsonField field, WordPattern pattern)
    {
        if (_pattern is not null) throw field.Refused("a second pre-tokenizer that cuts words is not supported");
        _pattern = pattern;
    }

    private void Metaspace(JsonField field)
    {
        string mark = Mark(field);
        _changes.Add(new(Space, mark));
        if (Prepends(field)) _changes.Add(new(null, mark, Once: true));
        if (!field.Flag("split", true)) return;
        if (mark != WordSplitter.SpaceMark) throw field["replacement"].Refused($"only {WordSplitter.SpaceMark} can be split at");
        Cut(field, WordPattern.SpaceMarks);
    }

    /// <summary>A Metaspace, as pre-tokenizer or decoder.</summary>
    private static string Mark(JsonField field)
    {
        field.Only("type", "replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep");
        return NotEmpty(field["replacement"]);
    }

    private static bool Prepends(JsonField field)
    {
        if (field.Given("prepend_scheme") is not { } scheme) return field.Flag("add_prefix_space", true);
        // A text here has one beginning, so that "first" and "always" are the same.
        return scheme.Text() switch { "always" or "first" => true, "never" => false, _ => throw scheme.Refused("known are always, first and never") };
    }

    private void Decoder(JsonField field)
    {
        if (field.IsNull) throw field.Refused("without a decoder its tokens are no text");
        string type = field["type"].Text();
        if (type == "Sequence")
        {
            field.Only("type", "decoders");
            foreach (JsonField part in field["decoders"].Items()) Decoder(part);
            return;
        }
        if (ByteLevel != (type == "ByteLevel")) throw field["type"].Refused(ByteLevel ? "a ByteLevel pre-tokenizer needs a ByteLevel decoder" : "it does not fit its pre-tokenizer, which is not ByteLevel");
        if (_strips) throw field["type"].Refused("nothing can follow a decoder that strips the first space");
        switch (type)
        {
            case "ByteLevel": field.Only("type", "add_prefix_space", "trim_offsets", "use_regex"); break;
            case "Replace": _replaced.Add(Replace(field)); break;
            case "ByteFallback":
                field.Only("type");
                _byteFallback = true;
                break;
            case "Fuse":
                field.Only("type");
                _fused = true;
                break;
            case "Strip":
                field.Only("type", "content", "start", "stop");
                if (field["content"].Text() != Space || field["start"].Whole() is not (0 or 1) || field["stop"].Whole() != 0) throw field.Refused("only one space at the beginning can be stripped");
                _strips = field["start"].Whole() == 1;
                break;
            case "Metaspace":
                _replaced.Add((Mark(field), Space));
                (_fused, _strips) = (true, Prepends(field));
                break;
            default: throw field["type"].Refused("this decoder is not known here; ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace and a Sequence of them are");
        }
    }

    private void PostProcessor(JsonField field)
    {
        switch (field["type"].Text())
        {
            case "Sequence":
                field.Only("type", "processors");
                foreach (JsonField part in field["processors"].Items()) PostProcessor(part);
                break;
            // It only moves the places of tokens in the text.
            case "ByteLevel": field.Only("type", "add_prefix_space", "trim_offsets", "use_regex"); break;
            case "TemplateProcessing":
                // The template for pairs of texts is never used here.
                field.Only("type", "single", "pair", "special_tokens");
                Template(field);
                break;
            default: throw field["type"].Refused("this post-processor is not known here; ByteLevel, TemplateProcessing and a Sequence of them are");
        }
    }

    private void Template(JsonField field)
    {
        bool text = false;
        foreach (JsonField piece in field["single"].Items())
        {
            piece.Only("SpecialToken", "Sequence");
            if (piece.Find("SpecialToken") is { } special)
            {
                string name = special["id"].Text();
                (text ? After : Before).Add((name, field["special_tokens"][name]["ids"]));
            }
            else if (text || piece["Sequence"]["id"].Text() != "A") throw piece.Refused("a template for one text has that text, A, once");
            else text = true;
        }
        if (!text) throw field["single"].Refused("it leaves out the text itself");
    }

    private static (string From, string To) Replace(JsonField field)
    {
        field.Only("type", "pattern", "content");
        field["pattern"].Only("String");
        return (NotEmpty(field["pattern"]["String"]), field["content"].Text());
    }

    private static string NotEmpty(JsonField field) => field.Text() is { Length: > 0 } text ? text : throw field.Refused("it must not be empty");
}
