using NopeGpt.Data.Documents;
using NopeGpt.Data.Tokenization;

namespace NopeGpt.Data.Tests;

public sealed class TokenizerComparisonTests
{
    [Fact]
    public void Figures_are_those_of_the_text_and_its_ids()
    {
        string[] documents = [.. StoryGenerator.Stories(4).Take(30), "日本 😀", "", "a\ud83d"];
        Tokenizer small = BytePairTrainer.Train([], 257), large = BytePairTrainer.Train(documents, 700);
        IReadOnlyList<Compression> figures = TokenizerComparison.Compare(documents, [("bytes", small), ("ours", large), ("cl100k", Tokenizer.Load("cl100k_base"))]);
        Assert.Equal(["bytes", "ours", "cl100k"], figures.Select(figure => figure.Name));
        long bytes = documents.Sum(text => (long)System.Text.Encoding.UTF8.GetByteCount(text)), characters = documents.Sum(text => (long)text.EnumerateRunes().Count());
        foreach (Compression figure in figures) Assert.Equal((33, bytes, characters, 0), (figure.Documents, figure.Bytes, figure.Characters, figure.Changed));
        Assert.Equal((bytes, 1.0), (figures[0].Tokens, figures[0].BytesPerToken));
        Assert.Equal(documents.Sum(text => (long)large.Encode(text).Count), figures[1].Tokens);
        Assert.Equal(documents.SelectMany(large.Encode).Distinct().Count(), figures[1].DistinctTokens);
        Assert.Equal((double)bytes / figures[1].Tokens, figures[1].BytesPerToken, 12);
        Assert.Equal(figures[1].Tokens * Math.Log2(700) / 8 / bytes, figures[1].Ratio, 12);
        Assert.True(figures[1].BytesPerToken > figures[0].BytesPerToken);
    }

    [Fact]
    public void Nothing_compared_is_nothing_and_it_can_be_cancelled()
    {
        Tokenizer tokenizer = BytePairTrainer.Train([], 257);
        Compression none = TokenizerComparison.Compare([], [("a", tokenizer)])[0];
        Assert.Equal((0, 0.0, 0.0), (none.Tokens, none.BytesPerToken, none.Ratio));
        Assert.Throws<OperationCanceledException>(() => TokenizerComparison.Compare(["a"], [("a", tokenizer)], new CancellationToken(canceled: true)));
    }
}
