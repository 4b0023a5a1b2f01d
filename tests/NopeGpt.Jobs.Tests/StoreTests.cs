using Microsoft.Extensions.Configuration;
using NopeGpt.Data.Tokenization;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests;

public sealed class StoreTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData(null, EncodingDownload.Published)]
    [InlineData("", EncodingDownload.Published)]
    [InlineData("http://127.0.0.1:8000/mirror", "http://127.0.0.1:8000/mirror")]
    public void Published_encodings_are_fetched_into_its_cache_from_the_address_of_the_configuration(string? address, string expected)
    {
        Store store = Store.Open(Configured(address), _folder["store"]);
        Assert.Equal((new Uri(expected), _folder["store/cache"]), (store.TokenizerDownload.Address, store.TokenizerDownload.Folder));
        Assert.Contains(store.TokenizerDownload.Folder, store.TokenizerPlaces);
    }

    [Theory]
    [InlineData("mirror")]
    [InlineData("file:///tmp/mirror")]
    public void An_address_that_is_none_is_refused(string address)
    {
        UserException error = Assert.Throws<UserException>(() => Store.Open(Configured(address), _folder["store"]));
        Assert.Contains($"Tokenizers:Address = {address}", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void The_root_is_the_one_given_before_that_of_the_configuration()
    {
        IConfiguration configuration = Configured(null, ("Storage:Root", _folder["other"]));
        Assert.Equal(_folder["store"], Store.Open(configuration, _folder["store"]).Root);
        Assert.Equal(_folder["other"], Store.Open(configuration).Root);
    }

    private static IConfiguration Configured(string? address, params (string Key, string Value)[] others) =>
        new ConfigurationBuilder().AddInMemoryCollection([new("Tokenizers:Address", address), .. others.Select(other => KeyValuePair.Create(other.Key, (string?)other.Value))]).Build();
}
