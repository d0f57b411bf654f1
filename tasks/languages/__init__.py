"""The languages of Aya-101, and the codes and names that sources use for them."""
