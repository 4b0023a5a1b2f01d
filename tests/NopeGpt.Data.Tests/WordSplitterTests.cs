using System.Text;
using NopeGpt.Data.Tokenization;
using Xunit.Abstractions;

namespace NopeGpt.Data.Tests;

public sealed class WordSplitterTests(ITestOutputHelper output)
{
    // The published patterns, their (?i:) spelled out: ſ is an s where case does not matter, which .NET does not know.
    private const string Contractions = "'(?:[sSſdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])", Rest = @"|\s*[\r\n]+|\s+(?!\S)|\s+";
    private const string Gpt2 = @"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
    private const string Cl100k = Contractions + @"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + Rest;
    private const string WholeEnd = Contractions + @"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|(?>\s+)\z|\s*[\r\n]|\s+(?!\S)|\s";
    private const string SingleDigits = Contractions + @"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + Rest;
    private const string O200k = @"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?:" + Contractions + @")?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?:" + Contractions
        + @")?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + Rest;

    [Theory]
    [InlineData("Gpt2", Gpt2)]
    [InlineData("Cl100k", Cl100k)]
    [InlineData("Cl100kWholeEnd", WholeEnd)]
    [InlineData("Cl100kSingleDigits", SingleDigits)]
    [InlineData("O200k", O200k)]
    public void Words_are_cut_as_the_pattern_says(string name, string pattern)
    {
        int seed = Environment.TickCount;
        output.WriteLine($"seed {seed}");
        Random random = new(seed);
        for (int i = 0; i < 5_000; i++)
        {
            string text = RandomText.Next(random, 12);
            Assert.Equal(BytePairOracle.Split(text, pattern), Split(Enum.Parse<WordPattern>(name), text));
        }
    }

    [Fact]
    public void Space_marks_begin_words()
    {
        Assert.Equal(["▁a", "▁", "▁b"], Split(WordPattern.SpaceMarks, "▁a▁▁b"));
        Assert.Equal(["a b", "▁"], Split(WordPattern.SpaceMarks, "a b▁"));
        Assert.Equal(["a ▁b"], Split(WordPattern.Whole, "a ▁b"));
    }

    internal static List<string> Split(WordPattern pattern, string text)
    {
        byte[] utf8 = Encoding.UTF8.GetBytes(text);
        List<string> words = [];
        for (int start = 0, end; start < utf8.Length; start = end)
        {
            end = WordSplitter.End(pattern, utf8, start);
            words.Add(Encoding.UTF8.GetString(utf8, start, end - start));
        }
        return words;
    }
}
