using System.Globalization;
using System.Text;
using System.Text.Json;

namespace NopeGpt.Data.Tokenization;

/// <summary>Reads Hugging Face's tokenizer.json of model type BPE: byte-level as GPT-2's, or characters with byte_fallback as Llama's.</summary>
internal sealed class TokenizerJsonReader(JsonField root)
{
    /// <summary>The names under which published tokenizers have their end of text, the surest first.</summary>
    private static readonly string[] _endings = [Tokenizer.EndOfText, "</s>", "<|end_of_text|>", "<eos>", "<|eos|>", "<EOS>", "[EOS]", "<|eot_id|>"];

    private readonly Dictionary<string, int> _ids = [], _specials = [], _fixedWords = [];
    private readonly TextRulesReader _rules = new();

    /// <exception cref="FormatException">Something is missing, wrong or not understood; the message has field, value and reason.</exception>
    public Vocabulary Read()
    {
        root.Only("version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "model");
        foreach (string name in (string[])["truncation", "padding"])
            if (root.Given(name) is { } setting) throw setting.Refused("texts are neither cut nor filled up here; set it to null");
        JsonField model = root["model"];
        CheckModel(model);
        foreach (JsonProperty token in model["vocab"].Value.EnumerateObject())
            if (!_ids.TryAdd(token.Name, new JsonField(token.Value, $"model.vocab.{token.Name}").Whole())) throw new FormatException($"the token '{token.Name}' stands twice in its vocabulary");
        _rules.Read(root);
        bool fallback = model.Flag("byte_fallback", false), whole = model.Flag("ignore_merges", false);
        if (_rules.ByteLevel && fallback) throw model["byte_fallback"].Refused("its model sets 'byte_fallback', which a ByteLevel pre-tokenizer leaves nothing to do for");
        if (!_rules.ByteLevel && !fallback) throw new FormatException("it has neither a ByteLevel pre-tokenizer nor model.byte_fallback, so that it cannot encode every text");
        if (!_rules.ByteLevel && whole) throw model["ignore_merges"].Refused("it is supported with a ByteLevel pre-tokenizer only");
        ReadAddedTokens();
        byte[][] tokens = Tokens(out int[] byteIds);
        TextRules rules = _rules.Rules with { WholeWords = whole, FixedWords = _fixedWords };
        if (_fixedWords.Count > 0 && (rules.Characters || rules.Changes.Count > 0))
            throw root["added_tokens"].Refused($"the added token '{_fixedWords.Keys.First()}' is not special, and such tokens are supported only where the text is not changed before");
        return new Vocabulary(tokens, _specials, Merges(model, byteIds))
        {
            Rules = rules,
            ByteIds = byteIds,
            BeginningId = Beginning(),
            EndOfTextId = Ending(),
            Written = _rules.ByteLevel ? [] : [.. _ids.OrderBy(token => token.Value).Select(token => token.Key)],
        };
    }

    private static void CheckModel(JsonField model)
    {
        model.Only("type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges");
        if (model.Given("type") is { } type && type.Text() != "BPE") throw type.Refused("only BPE is supported");
        if (model.Given("dropout") is { } dropout && !(dropout.Value.ValueKind == JsonValueKind.Number && dropout.Value.GetDouble() == 0)) throw dropout.Refused("its model sets 'dropout', with which the ids of a text change from time to time");
        foreach (string name in (string[])["continuing_subword_prefix", "end_of_word_suffix"])
            if (model.Given(name) is { } option && option.Text().Length > 0) throw option.Refused($"its model sets '{name}', which is not supported");
        // unk_token and fuse_unk are for what cannot be encoded. With all bytes in the vocabulary, which is checked, there is nothing such.
        if (model["vocab"].Value.ValueKind != JsonValueKind.Object) throw model["vocab"].Refused("it must be an object of tokens with their ids");
    }

    private void ReadAddedTokens()
    {
        bool? normalized = null;
        foreach (JsonField token in root.Given("added_tokens")?.Items() ?? [])
        {
            token.Only("id", "content", "single_word", "lstrip", "rstrip", "normalized", "special");
            string text = token["content"].Text();
            int id = token["id"].Whole();
            if (text.Length == 0) throw token.Refused("an added token must not be empty");
            if (!_ids.TryAdd(text, id) && _ids[text] != id) throw token.Refused($"the added token '{text}' has the ids {id} and {_ids[text]}");
            bool special = token.Flag("special", false);
            if (_specials.ContainsKey(text) || !(special ? _specials : _fixedWords).TryAdd(text, id)) throw token.Refused($"the added token '{text}' stands twice");
            if (special) continue; // Its text is never looked for, so that how it would be found does not matter.
            foreach (string name in (string[])["single_word", "lstrip", "rstrip"])
                if (token.Flag(name, false)) throw token[name].Refused($"the added token '{text}' is not special, and such are found by their plain text only");
            bool own = token.Flag("normalized", true);
            if (normalized is { } others && others != own) throw token["normalized"].Refused("all added tokens that are not special must agree in it");
            normalized = own;
        }
    }

    private byte[][] Tokens(out int[] byteIds)
    {
        byte[][] tokens = new byte[_ids.Count][];
        foreach ((string text, int id) in _ids)
        {
            if ((uint)id >= (uint)tokens.Length || tokens[id] is not null) throw new FormatException($"the ids of its {tokens.Length} tokens are not 0 to {tokens.Length - 1}, each once ('{text}' has {id})");
            tokens[id] = _specials.ContainsKey(text) || _fixedWords.ContainsKey(text) ? Encoding.UTF8.GetBytes(text)
                : !_rules.ByteLevel ? Characters(text)
                : ByteAlphabet.ToBytes(text) ?? throw new FormatException($"the token '{text}' is not written in the byte-level alphabet");
        }
        byteIds = new int[256];
        for (int value = 0; value < byteIds.Length; value++)
            if (!_ids.TryGetValue(_rules.ByteLevel ? ByteAlphabet.ToText([(byte)value]) : ByteToken((byte)value), out byteIds[value])) throw new FormatException($"the byte {value} is missing from its vocabulary");
        return tokens;
    }

    public static string ByteToken(byte value) => $"<0x{value:X2}>";

    private byte[] Characters(string token) =>
        token is ['<', '0', 'x', _, _, '>'] && byte.TryParse(token.AsSpan(3, 2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out byte value) && token == ByteToken(value)
            ? [value]
            : Encoding.UTF8.GetBytes(_rules.Spelled(token));

    /// <summary>Merges as "left right" or as ["left", "right"], the older and the newer way of the library.</summary>
    private List<Merge> Merges(JsonField model, int[] byteIds)
    {
        HashSet<int> bytes = _rules.ByteLevel ? [] : [.. byteIds];
        List<Merge> merges = [];
        HashSet<(int, int)> seen = [];
        foreach (JsonField merge in model["merges"].Items())
        {
            string[] parts = merge.Value.ValueKind == JsonValueKind.Array ? [.. merge.Items().Select(part => part.Text())] : merge.Text().Split(' ');
            string shown = $"merge {merges.Count + 1} ('{string.Join(' ', parts)}')";
            if (parts.Length != 2 || !_ids.TryGetValue(parts[0], out int left) || !_ids.TryGetValue(parts[1], out int right) || !_ids.TryGetValue(parts[0] + parts[1], out int result))
                throw new FormatException($"{shown} is not of two tokens that make a third of its vocabulary");
            if (!seen.Add((left, right))) throw new FormatException($"{shown} stands twice");
            if (bytes.Contains(left) || bytes.Contains(right)) throw new FormatException($"{shown} has a token that stands for a byte, which is not supported");
            merges.Add(new(left, right, result));
        }
        return merges;
    }

    private int? Beginning()
    {
        if (_rules.Before.Count > 1) throw root["post_processor"].Refused("more than one special token before the text is not supported");
        return _rules.Before.Count == 0 ? null : Special(_rules.Before[0]);
    }

    /// <summary>What the post-processor puts after a text ends it. Nothing is put after a prompt, which is to be continued.</summary>
    private int Ending()
    {
        if (_rules.After.Count > 1) throw root["post_processor"].Refused("more than one special token after the text is not supported");
        if (_rules.After.Count == 1) return Special(_rules.After[0]);
        return _endings.FirstOrDefault(_specials.ContainsKey) is { } ending ? _specials[ending]
            : throw new FormatException($"added_tokens: it has no special token that ends a text; known are {string.Join(", ", _endings)}");
    }

    private int Special((string Name, JsonField Ids) token)
    {
        int[] ids = [.. token.Ids.Items().Select(id => id.Whole())];
        return ids.Length == 1 && _specials.TryGetValue(token.Name, out int id) && ids[0] == id ? id : throw token.Ids.Refused($"it must be the one id of the special token '{token.Name}'");
    }
}
