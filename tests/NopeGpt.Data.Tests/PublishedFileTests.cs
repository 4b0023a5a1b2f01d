using NopeGpt.Data.Tokenization;
using NopeGpt.Tests;

namespace NopeGpt.Data.Tests;

public sealed class PublishedFileTests
{
    public static TheoryData<string> Names => [.. PublishedFile.All.Select(file => file.Name)];

    [NeedsTheory(Needs.SharedData)]
    [MemberData(nameof(Names))]
    public void What_is_told_without_loading_is_true(string name)
    {
        PublishedFile file = PublishedFile.Named(name)!;
        Tokenizer tokenizer = Tokenizer.Load(name, [Needs.Data("tokenizers")]);
        Assert.Equal((tokenizer.Hash, tokenizer.VocabularySize, name), (file.Hash, file.VocabularySize, tokenizer.PublishedName));
        Assert.Equal(tokenizer.SpecialTokens.OrderBy(special => special.Value).Select(special => special.Key), file.SpecialTokens);
        Assert.Equal(file.IsIncluded ? null : Needs.Data($"tokenizers/{file.FileName}"), file.Find([Needs.Data("tokenizers")]));
        Assert.Null(file.Find([]));
    }

    [Fact]
    public void Unknown_names_are_none() => Assert.Null(PublishedFile.Named("gpt5"));
}
