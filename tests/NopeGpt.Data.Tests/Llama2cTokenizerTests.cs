using System.Buffers.Binary;
using System.Text;
using NopeGpt.Data.Tokenization;
using NopeGpt.Tests;
using Xunit.Abstractions;

namespace NopeGpt.Data.Tests;

public sealed class Llama2cTokenizerTests(ITestOutputHelper output) : IDisposable
{
    private const int Beginning = 1, End = 2;
    private static readonly (string, float)[] _words = [(" ", -1), ("a", -2), ("b", -3), ("é", -4), ("😀", -5), ("ab", -6), (" a", -7), (" ab", -8)];

    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [NeedsFact(Needs.SharedData)]
    public void Ids_are_those_of_run_c_for_any_text()
    {
        string path = Needs.Data("weights/tok512.bin");
        Llama2cFile oracle = Llama2cFile.Read(path);
        Tokenizer tokenizer = Tokenizer.Load(path);
        Assert.Equal((512, 1, 2), (tokenizer.VocabularySize, tokenizer.BeginningId, tokenizer.EndOfTextId));
        Assert.Equal([403, 407, 261, 378], tokenizer.Encode("Once upon a time"));
        Random random = Seeded();
        foreach (string text in (string[])["", " ", "\0", "\n", "  Lily  ", "▁", .. Enumerable.Range(0, 3000).Select(_ => random.Next(3) == 0 ? RandomText.Next(random, 20) : Story(random))])
        {
            Assert.Equal(oracle.Encode(text), tokenizer.Encode(text));
            Assert.Equal(text, tokenizer.Decode(tokenizer.Encode(text)));
        }
    }

    [Fact]
    public void Ids_are_those_of_run_c_for_any_vocabulary()
    {
        Random random = Seeded();
        for (int round = 0; round < 40; round++)
        {
            // Scores without order, so that tokens are better than what they are made of, or can never be reached.
            List<string> words = [" ", "a", "b", "c"];
            while (words.Count < 40) words.Add(Letters(random, 2, 6));
            words = [.. words.Distinct()];
            float[] scores = [.. words.Select((_, i) => i - 20.5f)];
            random.Shuffle(scores);
            Llama2cFile oracle = new([.. Llama2cFile.Head, .. words.Zip(scores)]);
            Tokenizer tokenizer = Tokenizer.Load(Written(oracle));
            for (int i = 0; i < 40; i++)
            {
                string text = Letters(random, 0, random.Next(10) == 0 ? 200 : 25);
                Assert.Equal(oracle.Encode(text), tokenizer.Encode(text));
            }
        }

        static string Letters(Random random, int least, int most) => string.Concat(Enumerable.Range(0, random.Next(least, most + 1)).Select(_ => "aabbc "[random.Next(6)]));
    }

    [Fact]
    public void Saved_it_is_a_tokenizer_json_of_the_same_ids()
    {
        Llama2cFile oracle = new([.. Llama2cFile.Head, .. _words]);
        Tokenizer tokenizer = Tokenizer.Load(Written(oracle));
        tokenizer.Save(_folder["saved"]);
        Tokenizer loaded = Tokenizer.Load(_folder["saved"]);
        Assert.Equal(tokenizer.Hash, loaded.Hash);
        Assert.Equal((tokenizer.VocabularySize, Beginning, End), (loaded.VocabularySize, loaded.BeginningId, loaded.EndOfTextId));
        Assert.Equal([End, Beginning], loaded.StopIds);
        Assert.Equal(["<unk>", "<s>", "</s>"], loaded.SpecialTokens.OrderBy(token => token.Value).Select(token => token.Key));
        Random random = Seeded();
        for (int i = 0; i < 200; i++)
        {
            string text = RandomText.Next(random, 10);
            Assert.Equal(oracle.Encode(text), loaded.Encode(text));
            Assert.Equal(text, loaded.Decode(loaded.Encode(text)));
        }
    }

    [Fact]
    public void The_space_before_a_text_is_shown_only_inside_one()
    {
        Tokenizer tokenizer = Tokenizer.Load(Written(new([.. Llama2cFile.Head, .. _words])));
        int word = tokenizer.Encode("ab").Single();
        Assert.Equal("ab", tokenizer.Decode([word]));
        Assert.Equal("ab ab", tokenizer.Decode([word, word]));
        Assert.Equal("<s>ab</s><s>ab", tokenizer.Decode([Beginning, word, End, Beginning, word]));
        Assert.Equal(" ab", tokenizer.Decode(tokenizer.Encode(" ab")));
        Assert.Equal("ab ab", Shown(new TextDecoder(tokenizer), word, word));
        Assert.Equal("ab ab", Shown(new TextDecoder(tokenizer, after: Beginning), word, word));
        Assert.Equal(" ab ab", Shown(new TextDecoder(tokenizer, after: word), word, word));
        Assert.Equal(" ab"u8, tokenizer.Bytes(word));

        static string Shown(TextDecoder decoder, params int[] ids) => string.Concat(ids.Select(decoder.Push)) + decoder.Flush();
    }

    [Fact]
    public void The_decoder_never_shows_half_of_a_character_that_is_spelled_in_bytes()
    {
        Tokenizer tokenizer = Tokenizer.Load(Written(new([.. Llama2cFile.Head, .. _words])));
        Random random = Seeded();
        for (int i = 0; i < 200; i++)
        {
            string text = RandomText.Next(random, 10).Replace("\ufffd", "", StringComparison.Ordinal);
            TextDecoder decoder = new(tokenizer);
            StringBuilder shown = new();
            foreach (int id in tokenizer.Encode(text))
            {
                string piece = decoder.Push(id);
                Assert.DoesNotContain('\ufffd', piece);
                Assert.False(piece.Length > 0 && (char.IsLowSurrogate(piece[0]) || char.IsHighSurrogate(piece[^1])));
                shown.Append(piece);
            }
            Assert.Equal(text, shown + decoder.Flush());
        }
        Assert.Equal("a\ufffdb", tokenizer.Decode([.. tokenizer.Encode("a"), 3 + 0xF0, .. tokenizer.Encode("b").Skip(1)]));
    }

    [Theory]
    [InlineData("empty", "it has 0 bytes and no header")]
    [InlineData("header", "longest token is said to have 0 bytes")]
    [InlineData("few", "259 are the special ones and the bytes alone")]
    [InlineData("cut", "it ends within the token 266")]
    [InlineData("cut head", "it ends within the token 266")]
    [InlineData("length", "the token 5 is said to have -7 bytes")]
    [InlineData("long", "where the longest has 6")]
    [InlineData("nan", "the token 0 has the score NaN")]
    [InlineData("byte", "the token 68 is 'A' in place of <0x41>")]
    [InlineData("twice", "the tokens 260 and 267 are both 'a'")]
    [InlineData("score", "the tokens 264 ('ab') and 267 ('ba') have the same score -6")]
    [InlineData("utf8", "the token 262 is not valid UTF-8")]
    public void A_damaged_file_is_refused_with_token_and_reason(string damage, string reason)
    {
        List<(string Text, float Score)> tokens = [.. Llama2cFile.Head, .. _words];
        if (damage == "few") tokens = tokens[..200];
        if (damage == "byte") tokens[3 + 'A'] = ("A", 0);
        if (damage == "twice") tokens.Add(("\u0001", 0)); // a token of one byte, which is set below
        if (damage == "score") tokens.Add(("ba", -6));
        byte[] file = new Llama2cFile(tokens).Bytes();
        const int head = 8, first = 4, specials = 3 * head + 5 + 5 + 6;
        switch (damage)
        {
            case "empty": file = []; break;
            case "header": file[0] = 0; break;
            case "cut": file = file[..^1]; break;
            case "cut head": file = file[..^(3 + 5)]; break;
            case "length": BinaryPrimitives.WriteInt32LittleEndian(file.AsSpan(first + specials + (2 * (head + 6)) + 4), -7); break;
            case "long": BinaryPrimitives.WriteInt32LittleEndian(file.AsSpan(first + 4), 7); break;
            case "nan": BinaryPrimitives.WriteSingleLittleEndian(file.AsSpan(first), float.NaN); break;
            case "twice": file[^1] = (byte)'a'; break;
            case "utf8": file[first + specials + (256 * (head + 6)) + (3 * (head + 1)) + head] = 0xFF; break;
        }
        File.WriteAllBytes(_folder["tokenizer.bin"], file);
        string message = Assert.Throws<InvalidDataException>(() => Tokenizer.Load(_folder["tokenizer.bin"])).Message;
        Assert.Contains(reason, message, StringComparison.Ordinal);
        Assert.Contains(_folder["tokenizer.bin"], message, StringComparison.Ordinal);
        Assert.Contains("copy the file again", message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_file_that_was_cut_between_two_tokens_does_not_fit_its_model()
    {
        List<(string, float)> tokens = [.. Llama2cFile.Head, .. _words];
        Assert.Equal(tokens.Count, Tokenizer.Load(Written(new(tokens))).ForModel(tokens.Count, "model").VocabularySize);
        Tokenizer cut = Tokenizer.Load(Written(new(tokens[..^1])));
        Assert.Contains($"its tokenizer has {tokens.Count - 1} tokens and its model {tokens.Count}", Assert.Throws<InvalidDataException>(() => cut.ForModel(tokens.Count, "model")).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_changed_file_ends_with_an_error_or_a_tokenizer()
    {
        byte[] whole = new Llama2cFile([.. Llama2cFile.Head, .. _words]).Bytes();
        Random random = Seeded();
        int refused = 0;
        for (int i = 0; i < 1000; i++)
        {
            byte[] changed = random.Next(4) == 0 ? whole[..random.Next(whole.Length)] : [.. whole];
            for (int count = random.Next(3); count > 0 && changed.Length > 0; count--) changed[random.Next(changed.Length)] = (byte)random.Next(256);
            File.WriteAllBytes(_folder["changed.bin"], changed);
            try { Tokenizer.Load(_folder["changed.bin"]).Encode("ab é 😀"); }
            catch (InvalidDataException e)
            {
                Assert.Contains("changed.bin", e.Message, StringComparison.Ordinal);
                refused++;
            }
        }
        Assert.InRange(refused, 100, 999);
    }

    private string Written(Llama2cFile file)
    {
        File.WriteAllBytes(_folder["tokenizer.bin"], file.Bytes());
        return _folder["tokenizer.bin"];
    }

    private Random Seeded()
    {
        int seed = Environment.TickCount;
        output.WriteLine($"seed {seed}");
        return new Random(seed);
    }

    private static string Story(Random random) =>
        string.Concat(Enumerable.Range(0, random.Next(25)).Select(_ => (string[])["Once", " upon", " a", " time", " there", " was", "girl", " named", "Lily", ".", " She", "\n", "  ", "!", "aaaa", " the", "then"]).Select(words => words[random.Next(words.Length)]));
}
