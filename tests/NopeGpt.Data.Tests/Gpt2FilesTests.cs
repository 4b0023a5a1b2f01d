using System.Text;
using System.Text.Json;
using NopeGpt.Data.Tokenization;
using NopeGpt.Tests;

namespace NopeGpt.Data.Tests;

public sealed class Gpt2FilesTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [NeedsTheory(Needs.SharedData)]
    [InlineData("encoder.json", "vocab.bpe")]
    [InlineData("vocab.json", "merges.txt")]
    public void Ids_are_those_of_the_golden_encodings(string vocabulary, string merges)
    {
        Vocabulary ranks = Tokenizer.Load(Needs.Data("tokenizers/r50k_base.tiktoken")).Vocabulary;
        int[] order = [.. Enumerable.Range(0, ranks.Tokens.Length).Select(id => id == 50256 ? MergeDerivation.Never : id)];
        Write(vocabulary, merges, ranks.Tokens, MergeDerivation.Derive(ranks.Tokens, order, token => [.. token.Select(value => ranks.ByteIds[value])]));
        Tokenizer tokenizer = Tokenizer.Load(_folder.Path);
        Assert.Equal((50257, 50256, null), (tokenizer.VocabularySize, tokenizer.EndOfTextId, tokenizer.BeginningId));
        foreach (string line in File.ReadLines(Needs.Data("tokenizers/golden-encodings.jsonl")))
        {
            using JsonDocument golden = JsonDocument.Parse(line);
            string text = golden.RootElement.GetProperty("text").GetString()!;
            Assert.Equal(golden.RootElement.GetProperty("r50k").EnumerateArray().Select(id => id.GetInt32()), tokenizer.Encode(text));
            Assert.Equal(text, tokenizer.Decode(tokenizer.Encode(text)));
        }
        foreach (string file in (string[])[vocabulary, merges]) Assert.Equal(tokenizer.Hash, Tokenizer.Load(_folder[file]).Hash);
        tokenizer.Save(_folder["saved"]);
        Tokenizer saved = Tokenizer.Load(_folder["saved"]);
        Assert.Equal(tokenizer.Hash, saved.Hash);
        Assert.Equal(tokenizer.Encode("It's 1984, isn't it?  日本語"), saved.Encode("It's 1984, isn't it?  日本語"));
    }

    [Fact]
    public void A_tokenizer_json_beside_them_comes_first()
    {
        WriteSmall();
        Assert.Equal(_folder["encoder.json"], Tokenizer.FileIn(_folder.Path));
        BytePairTrainer.Train(["words"], 260).Save(_folder.Path);
        Assert.Equal(_folder["tokenizer.json"], Tokenizer.FileIn(_folder.Path));
        Assert.Equal(260, Tokenizer.Load(_folder.Path).VocabularySize);
        Assert.Equal(259, Tokenizer.Load(_folder["encoder.json"]).VocabularySize);
        Assert.Null(Tokenizer.FileIn(_folder["no such folder"]));
    }

    [Theory]
    [InlineData("vocab.bpe", "a b\n", "a b\na b\n", "line 3 ('a b') stands twice")]
    [InlineData("vocab.bpe", "a b\n", "a\n", "line 2 ('a') is not of two tokens")]
    [InlineData("vocab.bpe", "a b\n", "a c\n", "line 2 ('a c') is not of two tokens that make a third")]
    [InlineData("vocab.bpe", "ab c\n", "", "no merge makes the token 'abc'")]
    [InlineData("encoder.json", "\"!\":0", "\"!\":\"0\"", "the id of the token '!' is not a whole number")]
    [InlineData("encoder.json", "\"!\":0", "\"!\":1", "'")]
    [InlineData("encoder.json", "\"!\":0", "\"日\":0", "the token '日' is not written in the byte-level alphabet")]
    [InlineData("encoder.json", "\"!\":0", "\"!!\":0", "the byte 33 is missing")]
    [InlineData("encoder.json", "\"!\":0", "\"abc\":0", "the token 'abc' stands twice")]
    [InlineData("encoder.json", "endoftext", "end", "it has no token <|endoftext|>")]
    [InlineData("encoder.json", "{", "[", "not whole JSON")]
    public void A_damaged_file_is_refused_with_place_and_reason(string file, string old, string changed, string reason)
    {
        WriteSmall();
        string content = File.ReadAllText(_folder[file]);
        Assert.Contains(old, content, StringComparison.Ordinal);
        File.WriteAllText(_folder[file], content.Replace(old, changed, StringComparison.Ordinal));
        string message = Assert.Throws<InvalidDataException>(() => Tokenizer.Load(_folder.Path)).Message;
        foreach (string part in (string[])[_folder[file], reason, "take the two files of one model"]) Assert.Contains(part, message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_file_without_the_other_is_named()
    {
        WriteSmall();
        File.Delete(_folder["vocab.bpe"]);
        Assert.Contains($"{_folder["vocab.bpe"]} is missing", Assert.Throws<InvalidDataException>(() => Tokenizer.Load(_folder["encoder.json"])).Message, StringComparison.Ordinal);
        Assert.Contains("has no tokenizer.json", Assert.Throws<FileNotFoundException>(() => Tokenizer.Load(_folder.Path)).Message, StringComparison.Ordinal);
    }

    private void WriteSmall()
    {
        byte[][] tokens = [.. ByteAlphabet.Order.Select(value => (byte[])[value]), "ab"u8.ToArray(), "abc"u8.ToArray(), "<|endoftext|>"u8.ToArray()];
        int Id(byte value) => Array.IndexOf(ByteAlphabet.Order, value);
        Write("encoder.json", "vocab.bpe", tokens, [new(Id((byte)'a'), Id((byte)'b'), 256), new(256, Id((byte)'c'), 257)]);
    }

    private void Write(string vocabulary, string merges, byte[][] tokens, IReadOnlyList<Merge> list)
    {
        string[] texts = [.. tokens.Select(token => Encoding.UTF8.GetString(token) == Tokenizer.EndOfText ? Tokenizer.EndOfText : ByteAlphabet.ToText(token))];
        File.WriteAllText(_folder[vocabulary], JsonSerializer.Serialize(texts.Index().ToDictionary(token => token.Item, token => token.Index)));
        File.WriteAllText(_folder[merges], "#version: 0.2\n" + string.Concat(list.Select(merge => $"{texts[merge.Left]} {texts[merge.Right]}\n")));
    }
}
