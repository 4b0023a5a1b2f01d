using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Tokenizers;
using NopeGpt.Model;

namespace NopeGpt.Tests.Tokenizers;

public sealed class TokenizerLibraryTests : IDisposable
{
    private static readonly DateTimeOffset Now = new(2026, 5, 1, 0, 0, 0, TimeSpan.Zero);
    private readonly TemporaryFolder temporary = new();
    private readonly Store store;
    private readonly TokenizerLibrary library;

    public TokenizerLibraryTests()
    {
        store = new Store(temporary["root"]);
        library = new TokenizerLibrary(store);
    }

    public void Dispose() => temporary.Dispose();

    [Fact]
    public void A_folder_or_its_file_is_imported_under_a_name_and_deleted_as_a_whole()
    {
        Tokenizer tokenizer = BytePairTrainer.Train(["the cat sat on the mat, and the cat sat"], 270);
        tokenizer.Save(temporary["from"]);
        Assert.Equal("folder", library.Import(temporary["from"], "folder", Now));
        library.Import(temporary["from/tokenizer.json"], "file", Now);
        Assert.Equal(["file", "folder"], library.Names);
        Assert.Equal(tokenizer.Hash, library.Load("file").Hash);
        Assert.Equal((temporary["from"], Now), (library.Info("folder")!.ImportedFrom, library.Made("folder")));
        Assert.Equal(Directory.GetFiles(store.TokenizerFolder("file")).Sum(f => new FileInfo(f).Length), library.Size("file"));
        library.Delete("file");
        Assert.Equal([store.TokenizerFolder("folder")], Directory.EnumerateFileSystemEntries(store.TokenizersFolder));
        Assert.Contains("there is no tokenizer file", Assert.Throws<UserException>(() => library.Delete("file")).Message, StringComparison.Ordinal);
    }

    [NeedsFact(Needs.SharedData)]
    public void The_file_of_a_published_encoding_is_kept_so_that_it_can_be_loaded_from_then_on()
    {
        library.Import(Needs.Data("tokenizers/r50k_base.tiktoken"), "gpt2", Now);
        Assert.Equal([31373, 995], library.Load("gpt2").Encode("hello world"));
        Assert.Equal([31373, 995], library.Load("r50k_base").Encode("hello world"));
        Assert.Equal([Path.Combine(store.CacheFolder, "r50k_base.tiktoken")], Directory.EnumerateFiles(store.CacheFolder));
        library.Delete("gpt2");
        Assert.Equal(50257, library.Load("r50k_base").VocabularySize);
        Assert.Equal("p50k_base", library.Import(Needs.Data("tokenizers/p50k_base.tiktoken"), "", Now));
        Assert.Equal(50281, library.Load("p50k_base").VocabularySize);
        Assert.Empty(library.Names);
    }

    [NeedsFact(Needs.SharedData)]
    public void Llama2c_and_gpt2_files_become_a_tokenizer_json()
    {
        library.Import(Needs.Data("weights/tok512.bin"), "tiny-llama", Now);
        Tokenizer made = Tokenizer.Load(Needs.Data("weights/tok512.bin"));
        Assert.Equal(made.Encode("Once upon a time"), library.Load("tiny-llama").Encode("Once upon a time"));
        Assert.Equal(512, library.Load("tiny-llama").VocabularySize);
        Assert.True(File.Exists(Path.Combine(store.TokenizerFolder("tiny-llama"), "tokenizer.json")));
    }

    [Theory]
    [InlineData("/no/such/place", "good", "/no/such/place does not exist")]
    [InlineData("", "good", "path is empty")]
    [InlineData("a\0b", "good", "no file name can have")]
    [InlineData("/no/such/place", "", "name is empty")]
    [InlineData("/no/such/place", "../up", "'../up' cannot be a name")]
    [InlineData("/no/such/place", "cl100k_base", "published encoding")]
    public void What_cannot_be_imported_is_told_with_its_cure(string path, string name, string part)
    {
        Assert.Contains(part, Assert.Throws<UserException>(() => library.Import(path, name, Now)).Message, StringComparison.Ordinal);
        Assert.Empty(Directory.EnumerateFileSystemEntries(store.TokenizersFolder));
    }

    [Fact]
    public void A_folder_without_a_tokenizer_a_damaged_file_and_a_taken_name_are_told()
    {
        Directory.CreateDirectory(temporary["empty"]);
        Assert.Contains("has no tokenizer.json", Assert.Throws<UserException>(() => library.Import(temporary["empty"], "a", Now)).Message, StringComparison.Ordinal);
        File.WriteAllText(temporary["empty/tokenizer.json"], "{\"model\": ");
        Assert.Contains("is damaged", Assert.Throws<UserException>(() => library.Import(temporary["empty"], "a", Now)).Message, StringComparison.Ordinal);
        BytePairTrainer.Train([], 257).Save(temporary["good"]);
        library.Import(temporary["good"], "a", Now);
        string both = Assert.Throws<UserException>(() => library.Import(temporary["empty"], "a", Now)).Message;
        Assert.Contains("'a' is taken", both, StringComparison.Ordinal);
        Assert.Contains("is damaged", both, StringComparison.Ordinal);
        Assert.Equal([store.TokenizerFolder("a")], Directory.EnumerateFileSystemEntries(store.TokenizersFolder));
    }

    [Fact]
    public void Special_tokens_are_typed_with_their_bars()
    {
        List<Problem> problems = [];
        RunConfig config = Settings.BindText(new RunConfig(), "tokenizer.special_tokens", "<|endoftext|> | <|im_start|>|<|im_end|>", problems);
        Assert.Empty(problems);
        Assert.Equal(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], config.Tokenizer.SpecialTokens);
    }
}
